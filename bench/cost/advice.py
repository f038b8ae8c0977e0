"""What to measure next: the runs on a few nodes, or of one device alone, that would narrow a prediction most, per device-minute."""

from dataclasses import replace

import numpy as np

from bench.cost.layout import RECOMPUTES, SHARDINGS, Layout, batch_of, layout_of, plan_of
from bench.cost.memory import total_bytes
from bench.cost.posterior import Posterior
from bench.cost.probed import to_be_probed
from bench.cost.shard import slice_bytes
from bench.cost.sliced import to_be_sliced
from bench.cost.stack_memory import StackMemory, stack_memory
from bench.cost.table import Table, single
from bench.cost.uncertainty import NORMAL_P90, width_factors
from bench.cost.workload import workload_of
from bench.errors import InvalidFact
from bench.facts.hardware import Cluster, Precision
from bench.facts.model import ModelShape, Target
from bench.facts.plan import BatchPlan, ParallelPlan
from bench.facts.prediction import Advice
from bench.facts.stack import Stack

NODES = (1, 2, 4, 8, 16)
MINUTES = 4.0  # of a run: set-up, warm-up and some hundred steps
PROBE_MINUTES, SLICE_MINUTES = 5.0, 2.0  # of one device: at most what conf/probe and conf/slice let them take, and set-up
ROOM = 0.85  # of a device's memory that such a run may need
SAME_MODEL_SERIES = 1  # a cut model is another series than the target, which has -1


def advice(posterior: Posterior, table: Table, target: Target, *, layout: Layout, cluster: Cluster, stack: Stack) -> tuple[Advice, ...]:
    """Runs of the target's width on a few nodes, cut in depth, with the interval before and after; best per device-minute first."""
    shape, before = target.model, _half_width(posterior, table, float(posterior.predict(table)[1][0]))
    found = []
    for n_nodes in NODES:
        cut = _cut(shape, layout, cluster, n_nodes, stack_memory(stack))
        if cut is None or n_nodes > cluster.n_nodes:
            continue
        model, plan = cut
        further = single(workload_of(model, plan, cluster, stack, target.precision), series=SAME_MODEL_SERIES)
        after = _half_width(posterior, table, float(posterior.variance_after(table, further)[0]))
        n_devices = int(plan.n_devices)
        where = f"{n_nodes} node{'s' if n_nodes > 1 else ''} ({n_devices} devices)"
        what = f"{model.n_layers} of {shape.n_layers} layers in full width on {where}, {MINUTES:.0f} minutes"
        found.append(Advice(what=what, device_minutes=MINUTES * n_devices, before_fraction=before, after_fraction=after))
    found += _alone(posterior, table, shape, layout, cluster, before=before)
    return tuple(sorted(found, key=lambda a: -(a.before_fraction - a.after_fraction) / a.device_minutes))


def _alone(posterior: Posterior, table: Table, shape: ModelShape, layout: Layout, cluster: Cluster, *, before: float) -> list[Advice]:
    """A probe, and a slice of the target's plan where it fits, each on one device."""
    plan, micro = plan_of(layout), batch_of(layout).micro_batch_size
    ways = [(f"bench probe on one {cluster.device.name}", PROBE_MINUTES, to_be_probed(posterior.prior, cluster.device))]
    if _can_be_sliced(shape, plan, micro, cluster):
        what = f"bench slice of the plan on one {cluster.device.name}"
        ways.append((what, SLICE_MINUTES, to_be_sliced(posterior.prior, shape, plan, micro, cluster.device)))
    return [
        Advice(
            what=f"{what}, {minutes:.0f} minutes",
            device_minutes=minutes,
            before_fraction=before,
            after_fraction=min(before, _half_width(posterior, table, float(posterior.after(further).predict(table)[1][0]))),
        )
        for what, minutes, further in ways
    ]


def _can_be_sliced(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int, cluster: Cluster) -> bool:
    """Whether the plan divides every width of the model, and a layer of one device's share fits it."""
    try:
        return slice_bytes(shape, plan, micro_batch_size, 1, Precision.BF16) <= ROOM * cluster.device.memory_bytes.value
    except InvalidFact:
        return False


def _half_width(posterior: Posterior, target: Table, variance: float) -> float:
    """Half the 80 % interval as a fraction of the median, on its upper side."""
    sd = np.sqrt(variance + posterior.row_log_sd**2) * float(width_factors(posterior, target)[0])
    return float(np.expm1(NORMAL_P90 * sd))


def _cut(shape: ModelShape, layout: Layout, cluster: Cluster, n_nodes: int, by: StackMemory) -> tuple[ModelShape, Layout] | None:
    """The deepest cut that fits, under the target's tensor, context and expert parallelism as far as the devices go; None for none."""
    devices = n_nodes * cluster.devices_per_node
    tp = int(layout.tp)
    cp = int(layout.cp) if tp * int(layout.cp) <= devices else 1
    dp = devices // (tp * cp)
    if dp < 1:
        return None
    ep = max(size for size in range(1, int(layout.ep) + 1) if int(layout.ep) % size == 0 and dp % size == 0)
    plan = ParallelPlan(
        data_parallel_size=dp,
        tensor_parallel_size=tp,
        context_parallel_size=cp,
        expert_parallel_size=ep,
        sharding=SHARDINGS[int(layout.sharding)],
        recompute=RECOMPUTES[int(layout.recompute)],
    )
    n_micro = 4
    batch = BatchPlan(
        micro_batch_size=int(layout.micro_batch), global_batch_size=int(layout.micro_batch) * dp * n_micro, data_parallel_size=dp
    )
    laid = layout_of(plan, batch)
    for n_layers in (depth for depth in (32, 16, 8, 4, 2, 1) if depth <= shape.n_layers):
        model = replace(shape, n_layers=n_layers)
        if float(total_bytes(model, laid, by)) <= ROOM * cluster.device.memory_bytes.value:
            return model, laid
    return None
