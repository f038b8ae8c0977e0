"""The sections of a page, by what there is to tell of."""

from collections.abc import Sequence

from bench.facts.prediction import PlanSearch, Prediction
from bench.facts.profile import DeviceProfile
from bench.facts.result import Result
from bench.report.breakdown import breakdown_table
from bench.report.forecast_charts import forecast_charts, front_chart
from bench.report.format import count, percent, seconds, significant
from bench.report.html import Figure, Section
from bench.report.markdown import PROXY
from bench.report.plan_tables import plan_tables, uncertainty_table
from bench.report.profile_tables import profile_tables
from bench.report.run_charts import profile_charts, run_charts
from bench.report.tables import Table, measured_table, parts_table, projected_table


def run_figures(result: Result) -> tuple[Figure, ...]:
    """What the page of a run begins with."""
    m, e, u = result.measurement, result.measurement.tokens_per_s, result.utilization
    where, interval = f"{m.world_size} x {m.device_name}", f"{significant(e.low, 4)} to {significant(e.high, 4)}, {e.confidence:.0%}"
    mfu = (
        Figure("MFU", percent(u.mfu_causal), f"{percent(u.mfu_full)} with attention counted in full", "measured")
        if u.mfu_causal is not None
        else Figure("MFU", "n/a", u.peak_source, "measured")
    )
    return (
        Figure("tokens/s here", significant(e.value, 4), interval, "measured"),
        Figure("one step here", seconds(m.step_s.median), f"median of {e.n_steps} steps of {m.model.name} on {where}", "measured"),
        mfu,
        *(_projected(p) for p in result.projections[:2]),
    )


def _projected(p: Prediction) -> Figure:
    tokens = p.tokens_per_s
    detail = f"{p.target}; 10-90 %: {count(tokens.p10)} to {count(tokens.p90)}"
    return Figure(f"tokens/s, {p.cluster}", count(tokens.p50), detail, "predicted")


def run_sections(result: Result) -> tuple[Section, ...]:
    """What was measured, where the time goes, what it says of clusters, and where every figure comes from."""
    m = result.measurement
    parts = breakdown_table(m)
    measured = Section("Measured", PROXY, run_charts(m), (measured_table(result), *([parts] if parts else [])))
    if not result.projections and not result.not_projected:
        return measured, provenance_section(result)
    projected = Section(
        "Projected",
        "The answer of a model, with its interval; a published run it was not fitted to is off by what docs/accuracy.md says.",
        forecast_charts(result.projections),
        (projected_table(result.projections, result.not_projected), *map(uncertainty_table, result.projections[:1])),
    )
    return measured, projected, provenance_section(result)


def provenance_section(result: Result) -> Section:
    """Where every figure comes from."""
    e = result.environment
    rows = (
        ("measured here", f"{e.host}, {e.cpu}, {', '.join(dict.fromkeys(e.devices))}, {e.started_at}"),
        ("software", ", ".join(f"{name} {version}" for name, version in e.packages.items())),
        ("system", f"{e.platform}, Python {e.python}, driver {e.driver or 'none'}"),
        ("run", f"{result.run_id}, proxybench {result.bench_version}"),
    )
    told = Table("The run", ("", ""), rows)
    return Section("Where the figures come from", "", (), (told, *map(parts_table, result.projections)))


def profile_section(profile: DeviceProfile) -> Section:
    """What the device's parts reach."""
    lead = f"Probed on {profile.date}: {profile.world_size} x {profile.device_name}, shapes of {profile.target}."
    return Section("What the parts reach", lead, profile_charts(profile), profile_tables(profile))


def plans_section(searches: Sequence[PlanSearch]) -> Section:
    """Plans that were considered."""
    tables = tuple(table for search in searches for table in plan_tables(search))
    return Section("Plans", "Medians of the model.", tuple(map(front_chart, searches)), tables)
