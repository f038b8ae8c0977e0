"""What one device holds of a model that a plan cuts up: the widths of its layer, and the matrix products it runs."""

import math
from dataclasses import replace

from bench.facts.figure import fact, require
from bench.facts.model import ModelShape, nearest_divisors
from bench.facts.plan import ParallelPlan


@fact
class Product:
    """`n_batch` matrix products [m, k] x [k, n] at once."""

    name: str
    m: int
    k: int
    n: int
    n_batch: int = 1
    n_alike: int = 1  # products of these sizes in one pass through a layer

    @property
    def flops(self) -> float:
        """FLOPs of one of the alike, a multiply-add counted as two."""
        return 2.0 * self.n_batch * self.m * self.k * self.n

    def gradients(self) -> tuple["Product", "Product"]:
        """The two products of the backward pass: the gradient of the input, and that of the weight."""
        to_input = replace(self, name=f"{self.name} input gradient", k=self.n, n=self.k)
        to_weight = replace(self, name=f"{self.name} weight gradient", m=self.k, k=self.m)
        return to_input, to_weight


def local_shape(shape: ModelShape, plan: ParallelPlan) -> ModelShape:
    """The model in the widths that one device works on. The router still tells every expert apart: `n_experts` is that of the whole.

    Heads, feed-forward, each expert and the vocabulary (padded up) over tensor-parallel ranks, the sequence over context-parallel
    ones. Where there are fewer key-value heads than tensor-parallel ranks, each rank holds one, as a copy.
    Raises InvalidFact where the plan does not divide the model.
    """
    _require_divisible(shape, plan)
    tp = plan.tensor_parallel_size
    return replace(
        shape,
        n_heads=shape.n_heads // tp,
        n_kv_heads=max(1, shape.n_kv_heads // tp),
        d_ff=shape.d_ff // tp,
        d_ff_expert=shape.d_ff_expert // tp,
        vocab_size=math.ceil(shape.vocab_size / tp),
        seq_len=shape.seq_len // plan.context_parallel_size,
    )


def n_experts_held(shape: ModelShape, plan: ParallelPlan) -> int:
    """Experts of one layer on one device."""
    return shape.n_experts // plan.expert_parallel_size


def n_slots(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int) -> int:
    """Slots of one expert that one device fills from the tokens that it routes: a tensor-parallel rank's share of its micro-batch."""
    n_tokens = micro_batch_size * shape.seq_len // (plan.context_parallel_size * plan.tensor_parallel_size)
    return min(n_tokens, math.ceil(n_tokens * (shape.experts_top_k * shape.expert_capacity_factor / shape.n_experts)))


def _require_divisible(shape: ModelShape, plan: ParallelPlan) -> None:
    tp, cp, ep, kv = plan.tensor_parallel_size, plan.context_parallel_size, plan.expert_parallel_size, shape.n_kv_heads
    for width in ("n_heads", "d_ff", "d_ff_expert"):
        _require_divides("tensor_parallel_size", tp, width, getattr(shape, width))
    _require_divides("expert_parallel_size", ep, "n_experts", shape.n_experts)
    require(ep == 1 or shape.is_moe, f"expert_parallel_size {ep} given; {shape.name} has no experts; use 1")
    if tp % kv:
        _require_divides("tensor_parallel_size", tp, "n_kv_heads", kv)
    _require_divides("context_parallel_size * tensor_parallel_size", cp * tp, "seq_len", shape.seq_len)


def _require_divides(axis: str, size: int, width: str, whole: int) -> None:
    require(whole % size == 0, lambda: f"{axis} {size} does not divide {width} {whole}; use {nearest_divisors(size, whole)}")
