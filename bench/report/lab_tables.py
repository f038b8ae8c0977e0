"""An experiment on shaped links as tables: every prediction beside its measurement, and how all of them come out."""

import math
import statistics
from collections.abc import Callable, Sequence

from bench.facts.lab import SDS_OF_80_PERCENT, LabHonesty, LabResult, LabRow
from bench.report.format import percent, seconds
from bench.report.markdown import markdown_table
from bench.report.tables import Table

Rule = Callable[[LabRow], float]
RULES: dict[str, Rule] = {
    "from two hosts": lambda row: row.forecast.step_s,
    "from one host": lambda row: row.from_one_host.step_s,
    "last doubling again": lambda row: row.doubling_s,
    "linear": lambda row: row.linear_s,
}


def lab_tables(result: LabResult) -> tuple[Table, ...]:
    """Rows, then their summary."""
    return rows_table(result), errors_table(result.rows), worth_table(result.rows), honesty_table(result.honesty)


def lab_report(result: LabResult) -> str:
    """The tables in Markdown."""
    return "\n\n".join(markdown_table(table) for table in lab_tables(result)) + "\n"


def rows_table(result: LabResult) -> Table:
    """Every prediction."""
    header = (
        "network",
        "case",
        "hosts",
        "predicted",
        "80 % interval",
        "measured",
        "error",
        "from one host",
        "last doubling again",
        "linear",
    )
    rows = tuple(
        (
            row.network,
            row.case,
            str(row.n_hosts),
            seconds(row.forecast.step_s),
            f"{seconds(row.forecast.low_s)} to {seconds(row.forecast.high_s)}",
            seconds(row.measured_s),
            *(f"{100 * error(row, rule):+.1f} %" for rule in RULES.values()),
        )
        for row in result.rows
    )
    note = "compute was metered: waits of measured length stood for it, so that a few cores could be many hosts; all traffic was real"
    return Table(f"Steps on shaped links, {result.date}, {result.machine}", header, rows, (note,))


def errors_table(rows: Sequence[LabRow]) -> Table:
    """Errors of the predictor and of the rules."""
    header = ("rule", "predictions", "median error", "90th percentile", "inside the 80 % interval")
    lines = []
    for name, rule in RULES.items():
        errors = sorted(abs(error(row, rule)) for row in rows)
        inside = [is_inside(row) for row in rows] if name == "from two hosts" else []
        told = percent(sum(inside) / len(inside), 0) if inside else "tells none"
        lines.append((name, str(len(rows)), percent(statistics.median(errors), 1), percent(percentile(errors, 0.9), 1), told))
    return Table("How far off", header, tuple(lines))


def worth_table(rows: Sequence[LabRow]) -> Table:
    """What a second host was said to be worth, and what it was, in widths of the 80 % interval over its middle."""
    header = ("network", "case", "hosts", "width from one host", "promised with two", "with two", "narrowed, of what was promised")
    lines = []
    for row in rows:
        before, promised, after = (width(sd) for sd in (row.from_one_host.log_sd, row.promised_log_sd, row.forecast.log_sd))
        lines.append((row.network, row.case, str(row.n_hosts), *(percent(w, 0) for w in (before, promised, after)), percent(kept(row), 0)))
    return Table("What a second host is worth", header, tuple(lines))


def honesty_table(found: Sequence[LabHonesty]) -> Table:
    """Steps with real and with metered compute."""
    header = ("case", "hosts", "computed", "metered", "difference")
    lines = (
        (h.case, str(h.n_hosts), seconds(h.real_s), seconds(h.metered_s), f"{100 * (h.metered_s / h.real_s - 1):+.1f} %") for h in found
    )
    return Table("Whether metered compute is honest", header, tuple(lines))


def width(log_sd: float) -> float:
    """Of an 80 % interval over its middle."""
    return 2 * math.sinh(SDS_OF_80_PERCENT * log_sd)


def kept(row: LabRow) -> float:
    """How much of the narrowing that was promised came true."""
    before = row.from_one_host.log_sd
    return (before - row.forecast.log_sd) / (before - row.promised_log_sd)


def error(row: LabRow, rule: Rule) -> float:
    """Predicted over measured, less one."""
    return rule(row) / row.measured_s - 1


def is_inside(row: LabRow) -> bool:
    """Whether what was measured lies in the interval that was told."""
    return row.forecast.low_s <= row.measured_s <= row.forecast.high_s


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of an ordered sample does not exceed, interpolated."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
