"""A plan search, how sure a prediction is, and how it scales, as tables."""

from bench.facts.prediction import PlanSearch, Prediction, RunnerUp
from bench.facts.scaling import ScalingCurve
from bench.report.format import gibibytes, percent, scaled, seconds, significant
from bench.report.tables import Table, plan_words


def plan_tables(search: PlanSearch) -> tuple[Table, Table]:
    """The front of speed against memory, and the runners-up."""
    header = ("plan", "batch", "step", "slower\nper token", "memory", "chance\nto fit", "against the fastest")
    room = f"of {gibibytes(search.capacity_bytes)} per device"
    counted = f"{search.n_plans:,} plans considered, {search.n_fitting:,} fit {room}; medians of the model, no interval."
    chosen = search.recommended
    safe = f"{search.n_safe:,} of them with the chance that a recommended plan must have"
    advised = f"recommended: {' '.join(_row(chosen)[:2])}, which fits with a chance of {percent(chosen.fits_probability, 0)}; {safe}."
    front = Table(
        f"{search.target} on {search.cluster}: no other plan is both faster and smaller",
        header,
        tuple(map(_row, search.front)),
        (counted, advised),
    )
    lost = Table(f"{search.target} on {search.cluster}: the best plan of other sizes", header, tuple(map(_row, search.runners_up)), ())
    return front, lost


def _row(one: RunnerUp) -> tuple[str, ...]:
    batch = f"{one.batch.global_batch_size:,} by {one.batch.micro_batch_size}"
    fit = gibibytes(one.need_bytes), percent(one.fits_probability, 0)
    return plan_words(one.plan), batch, seconds(one.step_s), percent(one.slower_fraction), *fit, one.why


def uncertainty_table(p: Prediction) -> Table:
    """What makes a prediction unsure, and what to measure next."""
    causes = tuple((cause.cause, percent(cause.share, 0), f"+-{percent(cause.log_sd)}") for cause in p.uncertainty if cause.share >= 0.02)
    notes = tuple(
        f"measure next: {run.what}: from +-{percent(run.before_fraction, 0)} to +-{percent(run.after_fraction, 0)} "
        f"({significant(run.device_minutes)} device-minutes)"
        for run in p.next_runs[:3]
    )
    return Table(
        f"{p.target} on {p.cluster}: where the uncertainty comes from",
        ("cause", "share of the variance", "standard deviation"),
        causes,
        notes,
    )


def scaling_table(curve: ScalingCurve) -> Table:
    """The recommended plan and its speed on ever more devices."""
    rows = tuple(
        (
            f"{point.n_devices:,}",
            plan_words(point.plan),
            f"{point.global_batch_size:,}",
            scaled(point.tokens_per_s.p50, "tokens/s"),
            f"{scaled(point.tokens_per_s.p10, '')} to {scaled(point.tokens_per_s.p90, '')}",
            percent(point.efficiency_fraction, 0),
        )
        for point in curve.points
    )
    header = ("devices", "plan", "batch", "speed", "10-90 %", "efficiency")
    return Table(
        f"{curve.target} on {curve.cluster}: {curve.kind} scaling", header, rows, (f"Knee: {curve.knee}.", f"Ceiling: {curve.ceiling}.")
    )
