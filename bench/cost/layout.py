"""Plans as arrays: the same formulas price one plan or a whole search."""

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bench.facts.plan import BatchPlan, ParallelPlan, Recompute, Sharding

Array: TypeAlias = npt.NDArray[np.float64]

RECOMPUTES = tuple(Recompute)
SHARDINGS = tuple(Sharding)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Axis sizes of one plan (arrays without a dimension) or of many plans (arrays of one length)."""

    dp: Array
    tp: Array
    pp: Array
    n_virtual: Array
    cp: Array
    ep: Array
    sharding: Array  # index into SHARDINGS
    recompute: Array  # index into RECOMPUTES
    micro_batch: Array  # sequences
    n_micro: Array  # passes per optimizer step
    replicate: Array = field(default_factory=lambda: np.asarray(1.0))  # copies among the data ranks of sharded weights

    @property
    def n_devices(self) -> Array:
        """Devices that the plan keeps busy."""
        return self.dp * self.tp * self.pp * self.cp

    @property
    def sequences(self) -> Array:
        """Sequences per optimizer step over the whole world."""
        return self.micro_batch * self.n_micro * self.dp

    @property
    def replicas(self) -> Array:
        """Ranks that share one gradient: data- and context-parallel ones."""
        return self.dp * self.cp

    def is_sharding(self, sharding: Sharding) -> npt.NDArray[np.bool_]:
        """Where the plan shards in this way."""
        return np.asarray(self.sharding == SHARDINGS.index(sharding))

    def is_recompute(self, recompute: Recompute) -> npt.NDArray[np.bool_]:
        """Where the plan recomputes this much."""
        return np.asarray(self.recompute == RECOMPUTES.index(recompute))

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp] | int) -> "Layout":
        """The chosen plans."""
        return Layout(**{name: np.asarray(values[chosen]) if values.ndim else values for name, values in vars(self).items()})


def layout_of(plan: ParallelPlan, batch: BatchPlan) -> Layout:
    """The layout of one plan."""
    return Layout(
        dp=_array(plan.data_parallel_size),
        tp=_array(plan.tensor_parallel_size),
        pp=_array(plan.pipeline_parallel_size),
        n_virtual=_array(plan.n_virtual_stages),
        cp=_array(plan.context_parallel_size),
        ep=_array(plan.expert_parallel_size),
        sharding=_array(SHARDINGS.index(plan.sharding)),
        recompute=_array(RECOMPUTES.index(plan.recompute)),
        micro_batch=_array(batch.micro_batch_size),
        n_micro=_array(batch.n_micro_batches),
        replicate=_array(plan.data_parallel_replicate_size),
    )


def plan_of(layout: Layout) -> ParallelPlan:
    """The plan of a layout that holds one."""
    return ParallelPlan(
        data_parallel_size=int(layout.dp),
        data_parallel_replicate_size=int(layout.replicate),
        tensor_parallel_size=int(layout.tp),
        pipeline_parallel_size=int(layout.pp),
        n_virtual_stages=int(layout.n_virtual),
        context_parallel_size=int(layout.cp),
        expert_parallel_size=int(layout.ep),
        sharding=SHARDINGS[int(layout.sharding)],
        recompute=RECOMPUTES[int(layout.recompute)],
    )


def batch_of(layout: Layout) -> BatchPlan:
    """The batch of a layout that holds one plan."""
    return BatchPlan(
        micro_batch_size=int(layout.micro_batch),
        global_batch_size=int(layout.sequences),
        data_parallel_size=int(layout.dp),
    )


def _array(value: float) -> Array:
    return np.asarray(value, dtype=np.float64)
