"""A sweep as a table: one row a point, whatever came of it."""

from collections.abc import Sequence

from bench.facts.attempt import RunState
from bench.facts.sweep import Sweep, SweepRow
from bench.report.format import count
from bench.report.tables import Table


def sweep_table(sweep: Sweep) -> Table:
    """Every point with its throughput, or the reason why it has none."""
    common = [text for text in sweep.rows[0].point.overrides if all(text in row.point.overrides for row in sweep.rows)]
    common = common if len(sweep.rows) > 1 else []
    best = max((row.tokens_per_s.value for row in sweep.rows if row.tokens_per_s), default=None)
    return Table(
        title=f"Sweep: {sweep.n_measured} of {len(sweep.rows)} points measured",
        header=("point", "overrides", "outcome", "tokens/s", "interval", "of the best", "median step, ms", "launches"),
        rows=tuple(_cells(row, common, best) for row in sweep.rows),
        notes=(*(f"all: {' '.join(common)}" for _ in common[:1]), *_reasons(sweep)),
    )


def _reasons(sweep: Sweep) -> tuple[str, ...]:
    return tuple(f"{row.point.name}: {row.status.reason}" for row in sweep.rows if row.status and row.status.reason)


def _cells(row: SweepRow, common: Sequence[str], best: float | None) -> tuple[str, ...]:
    outcome = row.status.outcome if row.status else "not begun"
    named = (row.point.name, " ".join(text for text in row.point.overrides if text not in common), outcome)
    if row.tokens_per_s is None or row.step_s is None or best is None:
        return (*named, "", "", "", "", "")
    e = row.tokens_per_s
    is_valid = row.status is not None and row.status.state is RunState.FINISHED and not row.status.exit_code
    share = f"{e.value / best:.0%}" if is_valid else ""
    launches = f"{row.n_launches}"
    return (*named, count(e.value), f"{count(e.low)} to {count(e.high)}", share, f"{1e3 * row.step_s:.1f}", launches)
