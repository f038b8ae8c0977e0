"""What one rank of a laid-out model sends and multiplies in a step, counted and not timed."""

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum

from bench.facts.figure import fact, require
from bench.facts.model import ModelShape
from bench.facts.plan import ParallelPlan
from bench.facts.profile import Collective

TRACE_VERSION = 1


class Phase(StrEnum):
    """Where in a step a collective is called."""

    FORWARD = "forward"
    BACKWARD = "backward"


class MeshAxis(StrEnum):
    """Along which axis of the device mesh the ranks of a group lie."""

    DATA_SHARD = "data_shard"  # ranks that share one copy of the weights
    DATA_REPLICATE = "data_replicate"  # ranks that hold copies of the same weights
    EXPERT_DATA_SHARD = "expert_data_shard"  # the same two for experts that are dealt out
    EXPERT_DATA_REPLICATE = "expert_data_replicate"
    TENSOR = "tensor"
    CONTEXT = "context"
    EXPERT = "expert"


@fact
class CollectiveCalls:
    """Equal calls of one rank. `n_bytes` of a call is the whole buffer that a rank begins or ends with, as in nccl-tests."""

    phase: Phase
    collective: Collective
    axis: MeshAxis
    group_size: int
    n_bytes: int
    n_calls: int

    def __post_init__(self) -> None:
        require(self.group_size >= 2, f"group_size {self.group_size} must be at least 2: a rank alone sends nothing")
        require(self.n_calls >= 1, f"n_calls {self.n_calls} must be at least 1")

    @property
    def total_bytes(self) -> int:
        """Bytes of all calls."""
        return self.n_calls * self.n_bytes


def merged(calls: Iterable[CollectiveCalls]) -> tuple[CollectiveCalls, ...]:
    """The same calls, equal ones together, forward before backward."""
    found: dict[CollectiveCalls, int] = {}
    for each in calls:
        once = replace(each, n_calls=1)
        found[once] = found.get(once, 0) + each.n_calls
    order = list(Phase)
    kinds = sorted(found, key=lambda c: (order.index(c.phase), c.axis, c.collective, c.n_bytes))
    return tuple(replace(once, n_calls=found[once]) for once in kinds)


@fact
class StepCounts:
    """One rank's collectives and FLOPs of its matrix products, attention's among them, in one pass and its optimizer step."""

    collectives: tuple[CollectiveCalls, ...]
    product_flops: int


@fact
class StepTrace:
    """The counts of the program beside those of the formulas, of one rank of a target on so many devices."""

    trace_version: int
    target: str
    model: ModelShape
    plan: ParallelPlan
    micro_batch_size: int  # sequences; a step is one pass of it
    counts: StepCounts
    formula: tuple[CollectiveCalls, ...]
    formula_causal_flops: float  # attention halved
    formula_full_flops: float
    padding_factor: float  # bytes of a weight gather over those of the weights: rows are padded to the ranks that share them
