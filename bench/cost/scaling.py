"""Weak and strong scaling of a target on ever more devices of a cluster, where it stops to pay, and where the batch ends.

Every point is a search of its own, because a plan for a few nodes is none for thousands; the speeds of all are computed at once.
"""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from bench.cost.extrapolate import doublings_beyond_reach
from bench.cost.layout import Array, Layout, batch_of, plan_of
from bench.cost.posterior import Posterior
from bench.cost.search import best_plan
from bench.cost.table import Table
from bench.cost.uncertainty import NORMAL_P90, predicted
from bench.cost.workload import workload_of
from bench.errors import DoesNotFit
from bench.facts.figure import Figure, Interval, Provenance
from bench.facts.hardware import Cluster
from bench.facts.model import Target
from bench.facts.scaling import ScalingCurve, ScalingKind, ScalingPoint
from bench.facts.stack import Stack

LINE_FRACTION = 0.8  # of efficiency; where more devices stop to pay is a matter of taste, and this one is usual
# Sequences per device and step of weak scaling. Assumed: enough to fill a pipeline, and no more than a target's ceiling allows on
# some thousand devices.
SEQUENCES_PER_DEVICE = 1


def scaling_curves(target: Target, cluster: Cluster, stack: Stack, posterior: Posterior) -> tuple[ScalingCurve, ...]:
    """The weak and the strong curve; none where the target fits no count of the ladder."""
    curves = (_curve(kind, target, cluster, stack, posterior) for kind in ScalingKind)
    return tuple(curve for curve in curves if curve)


def device_ladder(cluster: Cluster) -> tuple[int, ...]:
    """One node, and twice as many devices each time up to the whole cluster, which is the last."""
    doublings = range((cluster.n_nodes - 1).bit_length())
    return (*(cluster.devices_per_node * 2**k for k in doublings), cluster.n_devices)


def _curve(kind: ScalingKind, target: Target, cluster: Cluster, stack: Stack, posterior: Posterior) -> ScalingCurve | None:
    found = [(n, layout) for n in device_ladder(cluster) if (layout := _plan(kind, target, cluster, stack, posterior, n_devices=n))]
    if not found:
        return None
    counts = np.array([float(n) for n, _ in found])
    found_speeds = speeds(target, cluster, stack, posterior, stacked([layout for _, layout in found]))
    per_device = np.array([speed.p50 for speed in found_speeds]) / counts
    efficiency = per_device / np.maximum.accumulate(per_device)
    points = tuple(
        ScalingPoint(
            n_devices=n,
            plan=plan_of(layout),
            global_batch_size=batch_of(layout).global_batch_size,
            tokens_per_s=speed,
            efficiency_fraction=float(share),
        )
        for (n, layout), speed, share in zip(found, found_speeds, efficiency, strict=True)
    )
    knee = knee_of(points, LINE_FRACTION)
    return ScalingCurve(
        target=target.name,
        cluster=cluster.name,
        kind=kind,
        points=points,
        line_fraction=LINE_FRACTION,
        knee_devices=knee,
        knee=_knee_in_words(points, knee),
        ceiling=_ceiling_in_words(kind, target, cluster),
    )


def _plan(kind: ScalingKind, target: Target, cluster: Cluster, stack: Stack, posterior: Posterior, *, n_devices: int) -> Layout | None:
    """The plan on a part of the cluster, all of which it is to use; None where none fits."""
    most = target.max_global_batch_size.value
    limit = min(most, float(SEQUENCES_PER_DEVICE * n_devices)) if kind is ScalingKind.WEAK else most
    source = f"{kind.value} scaling"
    asked = replace(target, max_global_batch_size=Figure(value=limit, provenance=Provenance.ASSUMED, source=source))
    part = replace(cluster, n_nodes=n_devices // cluster.devices_per_node)
    try:
        return best_plan(asked, part, stack, posterior, shares=(1,))
    except DoesNotFit:
        return None


def stacked(layouts: Sequence[Layout]) -> Layout:
    """One layout that holds the plans of several, each of one."""
    return Layout(**{f.name: np.array([float(getattr(layout, f.name)) for layout in layouts]) for f in fields(Layout)})


def speeds(target: Target, cluster: Cluster, stack: Stack, posterior: Posterior, layout: Layout) -> list[Interval]:
    """Tokens per second of every plan, as wide as a prediction of it alone."""
    n = len(layout.dp)
    work = workload_of(target.model, layout, cluster, stack, target.precision).broadcast(n)
    mean, sd = predicted(posterior, Table(work=work, owner=np.arange(n), weight=np.ones(n), series=np.full(n, -1)))
    devices = layout.n_devices
    beyond = np.array([doublings_beyond_reach(posterior.prior, int(count)) for count in devices])
    spread = NORMAL_P90 * np.hypot(sd, posterior.prior.widening_log_sd.value * beyond)
    return [_interval(float(middle), float(width)) for middle, width in zip(devices * np.exp(-mean), spread, strict=True)]


def _interval(middle: float, spread: float) -> Interval:
    return Interval(p10=middle * float(np.exp(-spread)), p50=middle, p90=middle * float(np.exp(spread)))


def knee_of(points: Sequence[ScalingPoint], line_fraction: float) -> int:
    """The most devices up to which no point is less efficient than the line."""
    below: Array = np.array([point.efficiency_fraction < line_fraction for point in points])
    last = int(np.argmax(below)) - 1 if below.any() else len(points) - 1
    return points[last].n_devices


def _knee_in_words(points: Sequence[ScalingPoint], knee: int) -> str:
    first, last = points[0].n_devices, points[-1].n_devices
    if knee == last:
        return f"from {first:,} to {last:,} devices the speed per device never falls below {LINE_FRACTION:.0%} of the best on fewer"
    after = next(point for point in points if point.n_devices > knee)
    return (
        f"up to {knee:,} devices each keeps {LINE_FRACTION:.0%} of the best speed that it has among fewer, {first:,} or more; "
        f"on {after.n_devices:,} it is {after.efficiency_fraction:.0%}"
    )


def _ceiling_in_words(kind: ScalingKind, target: Target, cluster: Cluster) -> str:
    largest = target.max_global_batch_size.value
    batch = f"{largest:,.0f} sequences ({largest * target.model.seq_len:,.0f} tokens) per step"
    if kind is ScalingKind.STRONG:
        return f"a step has {batch}, the most that the target may take, or what of that divides evenly, on however many devices"
    reached = largest / SEQUENCES_PER_DEVICE
    if reached >= cluster.n_devices:
        return f"a step has {SEQUENCES_PER_DEVICE} sequence per device; the ceiling of {batch} lies beyond the cluster"
    up_to = f"up to the ceiling of {batch} on {reached:,.0f} devices; more devices share that"
    return f"a step has {SEQUENCES_PER_DEVICE} sequence per device {up_to}"
