"""docs/claims.md and docs/goodput.md: what others stated and observed, and the product's own figure beside it."""

from collections.abc import Sequence

from bench.facts.backcheck import ClaimCheck, Compared, EnergyCheck, RowCheck
from bench.facts.figure import Interval
from bench.facts.reliability import Goodput
from bench.report.format import percent, significant
from bench.report.markdown import markdown_table
from bench.report.tables import Table

CLAIMS = (
    "Made by `scripts/pages`; a test makes it again and compares. A claim agrees where its value lies in the product's 10-90 % interval, "
    "or equals a count. Counts of devices agree because the files take them over: what is checked is that no file took another one. "
    "Claims about people, dates of models, funding and shares are left out."
)
GOODPUT = (
    "Made by `scripts/pages`; a test makes it again and compares. The failure rates that a row is predicted from leave that row's own "
    "source out (`conf/reliability/published.yaml`); recovery is that of the row's set-up (`conf/recovery/`). Rows, sources and reasons "
    "are in `bench/store/data/`. Intervals are 10 to 90 %."
)


def claims_page(checks: Sequence[ClaimCheck]) -> str:
    """The page of claims."""
    seeds, others = ([c for c in checks if c.claim.id.startswith("R") is public] for public in (False, True))
    tables = (_claims_table("claims of the documents about compute", seeds), _claims_table("statements about public clusters", others))
    return _page("What the documents behind this project claim", CLAIMS, *tables)


def _claims_table(what: str, checks: Sequence[ClaimCheck]) -> Table:
    header = ("claim", "what it says", "claimed", "own figure, 10 to 90 %", "agrees", "how, and which reading")
    agreeing = sum(check.agrees for check in checks)
    return Table(f"{len(checks)} {what}, {agreeing} agree", header, tuple(_claim_row(check) for check in checks))


def _page(title: str, text: str, *tables: Table) -> str:
    return "\n\n".join([f"# {title}", text, *map(markdown_table, tables)]) + "\n"


def _claim_row(check: ClaimCheck) -> tuple[str, ...]:
    c = check.claim
    claimed = _plain(c.value_low) if c.value_low == c.value_high else f"{_plain(c.value_low)} to {_plain(c.value_high)}"
    note = f"{check.how}. {c.note}" if c.note else check.how
    return (
        f"{c.id}\n{c.source}",
        f"{c.claim} ({c.system})",
        f"{claimed} {c.unit}",
        _interval(check.own),
        "yes" if check.agrees else "no",
        note,
    )


def _plain(value: float) -> str:
    return significant(value, 4)


def _interval(own: Interval) -> str:
    if own.p10 == own.p90:
        return _plain(own.p50)
    return f"{significant(own.p50)} ({significant(own.p10)} to {significant(own.p90)})"


def goodput_page(rows: Sequence[RowCheck], grid: Sequence[tuple[int, str, Goodput, float]], energy: Sequence[EnergyCheck]) -> str:
    """The page of failures, effective time and power against published runs."""
    tables = (_runs_table(rows), _fractions_table(rows), _grid_table(grid), _energy_table(energy), _unused_table(rows))
    return _page("Failures, effective time and power against published runs", GOODPUT, *tables)


def _runs_table(rows: Sequence[RowCheck]) -> Table:
    header = ("run", "devices", "what", "predicted, 10 to 90 %", "observed", "error of the median", "within the interval", "note")
    lines = tuple(_compared_row(check, c) for check in rows for c in check.compared)
    held = sum(c.holds for check in rows for c in check.compared)
    worst = (
        "Errors are to the nearest end of what was observed. FT-HSDP's restart of 100,000 devices must have taken about 14 minutes to "
        "leave 44 %: twice what is published for 16,384. Restarts by hand for new code (ByteRobust's mixture of experts) are no failures "
        "and are not counted. Below some 500 devices the rate of the job as a whole does not hold: it comes from jobs of about 1,000 "
        "devices and more."
    )
    return Table(f"{len(lines)} observed quantities, {held} within the interval", header, lines, (worst,))


def _compared_row(check: RowCheck, c: Compared) -> tuple[str, ...]:
    row = check.row
    observed = _plain(c.observed_low) if c.observed_low == c.observed_high else f"{_plain(c.observed_low)} to {_plain(c.observed_high)}"
    what = f"{c.what}, hardware" if row.hardware_only else c.what
    error = f"{100 * c.error_fraction:+.0f} %"
    return (
        f"{row.source}\n{row.locator}",
        f"{row.n_devices:,} {row.device}",
        what,
        _interval(c.predicted),
        observed,
        error,
        _yes(c.holds),
        row.note,
    )


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _fractions_table(rows: Sequence[RowCheck]) -> Table:
    header = ("run", "exact form", "simulated", "difference", "first order", "first order within 1 %")
    lines = []
    for check in rows:
        if check.exact_fraction is None:
            continue
        exact, simulated, first = check.exact_fraction, check.simulated_fraction, check.first_order_fraction
        difference = "n/a" if simulated is None else f"{100 * (simulated / exact - 1):+.2f} %"
        valid = "n/a" if first is None else _yes(abs(first / exact - 1) <= 0.01)
        lines.append((check.row.source, percent(exact), percent(simulated), difference, percent(first), valid))
    note = "At the medians; replicas have one form only and are not simulated."
    return Table("Effective time: closed forms and simulation", header, tuple(lines), (note,))


def _grid_table(grid: Sequence[tuple[int, str, Goodput, float]]) -> Table:
    header = ("devices", "recovery", "failures every", "checkpoint every", "exact form", "simulated", "first order", "first order valid")
    lines = tuple(
        (
            f"{n:,}",
            name,
            f"{significant(g.mtbf_s / 60)} min",
            f"{significant(g.interval_s)} s",
            percent(g.effective_fraction),
            percent(simulated),
            percent(g.small_loss_fraction),
            _yes(g.first_order_valid),
        )
        for n, name, g, simulated in grid
    )
    note = "405e9 parameters, at the medians. Valid: within 1 % of the exact form, which the simulation meets within 1 % everywhere here."
    return Table("Where the first-order form holds", header, lines, (note,))


def _energy_table(energy: Sequence[EnergyCheck]) -> Table:
    header = ("run", "device", "measured", "predicted", "error", "within 15 %", "how")
    lines = tuple(
        (
            f"{e.row.source}\n{e.row.locator}",
            e.row.device,
            f"{e.row.measured_w:g} W",
            f"{e.predicted_w:.0f} W",
            f"{100 * e.error_fraction:+.1f} %",
            _yes(abs(e.error_fraction) <= 0.15),
            "; ".join(text for text in (e.how, e.row.load_note) if text),
        )
        for e in energy
    )
    metered = [e for e in energy if e.row.is_metered]
    held = sum(abs(e.error_fraction) <= 0.15 for e in metered)
    others = ", ".join(e.row.source for e in energy if not e.row.is_metered)
    notes = (
        "Energy is power times the device-hours of the source, so it errs alike. TPU power includes the host.",
        f"Not said to be metered in what was looked up, and shown for what it tells of the host of a TPU v4: {others}.",
    )
    return Table(f"{len(metered)} metered powers, {held} within 15 %", header, lines, notes)


def _unused_table(rows: Sequence[RowCheck]) -> Table:
    lines = tuple((check.row.source, check.row.locator, check.row.not_used) for check in rows if check.row.not_used)
    return Table("Rows that give too little", ("run", "where", "why"), lines)
