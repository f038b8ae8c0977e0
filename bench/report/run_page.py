"""The sections of a page, by what there is to tell of."""

import json
from collections.abc import Mapping, Sequence

from bench.facts.prediction import PlanSearch, Prediction
from bench.facts.profile import DeviceProfile
from bench.facts.result import Result
from bench.facts.scaling import ScalingCurve, WhatIf
from bench.report.breakdown import breakdown_table
from bench.report.forecast_charts import Like, forecast_charts, front_chart, scaling_chart
from bench.report.format import count, percent, seconds, significant
from bench.report.html import Figure, Section
from bench.report.markdown import PROXY
from bench.report.plan_tables import plan_tables, uncertainty_table
from bench.report.profile_tables import profile_tables
from bench.report.run_charts import profile_charts, run_charts
from bench.report.tables import Table, measured_table, parts_table, projected_table

# What the reader sets. 264 node-days between failures is what 16,384 H100 had in 54 days (Llama 3, arXiv 2407.21783: 419
# unplanned interruptions of 2,048 nodes); the others are to be known by whoever runs the cluster.
FREE = tuple(
    {"key": key, "label": label, "unit": unit, "values": values, "chosen": 4}
    for key, label, unit, values in (
        ("mtbf_node_days", "A node fails once in", "days", (25, 50, 100, 154, 264, 430, 1000)),
        ("checkpoint_s", "A checkpoint stops training for", "s", (0.5, 1, 2, 5, 10, 20, 60)),
        ("restart_s", "A failure costs, beside lost work", "s", (15, 30, 60, 120, 300, 600, 1200)),
        ("price", "A device costs an hour", "USD", (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20)),
    )
)


def run_figures(result: Result) -> tuple[Figure, ...]:
    """What the page of a run begins with."""
    m, e, u = result.measurement, result.measurement.tokens_per_s, result.utilization
    where, interval = f"{m.world_size} x {m.device_name}", f"{significant(e.low, 4)} to {significant(e.high, 4)}, {e.confidence:.0%}"
    mfu = (
        Figure("MFU", percent(u.mfu_causal), f"{percent(u.mfu_full)} with attention counted in full", "measured")
        if u.mfu_causal is not None
        else Figure("MFU", "n/a", u.peak_source, "")
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


def outlook_section(curves: Sequence[ScalingCurve], flops_per_token: float, published: Sequence[Like], panel: str) -> Section:
    """The scaling curve, and a panel that answers at once."""
    lead = (
        "Every point is the plan that the search finds for it. The panel looks its speeds up in a grid of such predictions; time that "
        "trains is Daly's formula for checkpoints and restarts (2006, equation 20) with the figures that you set, which are assumptions."
    )
    return Section("What if", lead, (scaling_chart(curves, flops_per_token, published),), (), panel)


def panel_data(grids: Sequence[WhatIf], prices: Mapping[str, float], n_tokens: float) -> str:
    """The grids and the assumptions that the page's script takes, as JSON."""
    clusters = [
        {
            "name": grid.cluster,
            "devices_per_node": grid.devices_per_node,
            "n_devices": grid.n_devices,
            "link_factors": grid.link_factors,
            "tokens_per_s": [[[i.p10, i.p50, i.p90] for i in row] for row in grid.tokens_per_s],
            "price": prices.get(grid.cluster),
        }
        for grid in grids
    ]
    return json.dumps({"clusters": clusters, "n_tokens": n_tokens, "free": FREE}, allow_nan=False)


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
