"""Collectives of one rank in one pass of a plan on a device mesh and its optimizer step, from the shape alone.

What the program sends, not what an ideal one would: `bench trace` counts both. Weights and activations travel in bf16,
gradients in fp32. Symbols: B micro-batch, S sequence, T = B * S / cp tokens, D model width, H query and K key-value heads, d head
width, F feed-forward width, E experts, C slots of an expert, V vocabulary, L layers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from bench.facts.model import ModelShape, NormKind, Position
from bench.facts.plan import ParallelPlan, Recompute, Sharding
from bench.facts.profile import Collective
from bench.facts.trace import CollectiveCalls, MeshAxis, Phase, merged

WIDTH_BYTES = 2  # bf16
GRADIENT_BYTES = 4  # reduced in fp32
Dims = tuple[int, ...]
Group = tuple[MeshAxis, int]  # along which axis, of how many ranks


@dataclass(frozen=True)
class Unit:
    """Weights that are gathered and reduced together, and how many units are alike."""

    tensors: tuple[Dims, ...]  # of one rank, before any sharding over data
    n_alike: int
    shards: Group
    copies: Group

    @property
    def n_elements(self) -> int:
        """Weights of one unit."""
        return sum(math.prod(dims) for dims in self.tensors)

    @property
    def n_padded(self) -> int:
        """The same with the first dimension of every tensor padded up to a multiple of the ranks that share it, as FSDP2 does.

        >>> Unit(((512, 4),), 1, shards=(MeshAxis.DATA_SHARD, 1000), copies=(MeshAxis.DATA_REPLICATE, 1)).n_padded
        4000
        """
        _, n = self.shards
        return sum(math.ceil(dims[0] / n) * n * math.prod(dims[1:]) for dims in self.tensors)


def step_collectives(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int) -> tuple[CollectiveCalls, ...]:
    """Every collective of one rank, equal calls together; pipelines and DDP's buckets are not among them."""
    assert plan.pipeline_parallel_size == 1, plan
    T = micro_batch_size * shape.seq_len // plan.context_parallel_size
    return merged(
        [
            *(calls for unit in units(shape, plan) for calls in weight_calls(unit, plan)),
            *tensor_calls(shape, plan, T),
            *context_calls(shape, plan, T),
            *expert_calls(shape, plan, T),
        ]
    )


def padding_factor(shape: ModelShape, plan: ParallelPlan) -> float:
    """Bytes of gathering all weights over those of the weights; 1 where no row is padded."""
    each = units(shape, plan)
    return sum(u.n_alike * u.n_padded for u in each) / sum(u.n_alike * u.n_elements for u in each)


def units(shape: ModelShape, plan: ParallelPlan) -> tuple[Unit, ...]:
    """Every layer, its experts apart where they are dealt out over data ranks, and the rest of the model."""
    layer, routed = tuple(_layer_tensors(shape, plan)), tuple(_expert_tensors(shape, plan))
    data = _groups(plan, plan.data_parallel_size, MeshAxis.DATA_SHARD, MeshAxis.DATA_REPLICATE)
    rest = Unit(tuple(_end_tensors(shape, plan)), 1, *data)
    if plan.expert_parallel_size == 1:
        return Unit(layer + routed, shape.n_layers, *data), rest
    n_routed = plan.data_parallel_size // plan.expert_parallel_size
    experts = _groups(plan, n_routed, MeshAxis.EXPERT_DATA_SHARD, MeshAxis.EXPERT_DATA_REPLICATE)
    return Unit(layer, shape.n_layers, *data), Unit(routed, shape.n_layers, *experts), rest


def _groups(plan: ParallelPlan, n_data: int, shard: MeshAxis, replicate: MeshAxis) -> tuple[Group, Group]:
    """Ranks that share weights, and ranks that hold copies of a share; context-parallel ranks are among them."""
    n = n_data * plan.context_parallel_size
    copies = n if plan.sharding is Sharding.NONE else plan.data_parallel_replicate_size
    return (shard, n // copies), (replicate, copies)


def _layer_tensors(shape: ModelShape, plan: ParallelPlan) -> Iterator[Dims]:
    D, tp = shape.d_model, plan.tensor_parallel_size
    Hd, Kd, F = shape.n_heads * shape.head_dim // tp, shape.n_kv_heads * shape.head_dim // tp, shape.d_ff // tp
    yield from n_norms(shape) * _norm_tensors(shape)
    yield from ((Hd, D), (Kd, D), (Kd, D), (D, Hd))
    if shape.bias:
        yield from ((Hd,), (Kd,), (Kd,), (D,))
    if F:
        yield from (*(1 + shape.gated) * ((F, D),), (D, F))
    if F and shape.bias:
        yield from (*(1 + shape.gated) * ((F,),), (D,))
    if shape.is_moe:
        yield (shape.n_experts, D)


def _expert_tensors(shape: ModelShape, plan: ParallelPlan) -> Iterator[Dims]:
    if shape.is_moe:
        e, D, F = shape.n_experts // plan.expert_parallel_size, shape.d_model, shape.d_ff_expert // plan.tensor_parallel_size
        yield from (*(1 + shape.gated) * ((e, D, F),), (e, F, D))


def _end_tensors(shape: ModelShape, plan: ParallelPlan) -> Iterator[Dims]:
    D, V = shape.d_model, shape.vocab_size // plan.tensor_parallel_size
    yield from (1 if shape.tied_embedding else 2) * ((V, D),)
    yield from _norm_tensors(shape)
    if shape.position is Position.LEARNED:
        yield (shape.seq_len, D)


def _norm_tensors(shape: ModelShape) -> tuple[Dims, ...]:
    return (1 + (shape.norm is NormKind.LAYER)) * ((shape.d_model,),)


def n_norms(shape: ModelShape) -> int:
    """Norms of a layer."""
    return 4 if shape.sandwich_norm else 2


def weight_calls(unit: Unit, plan: ParallelPlan) -> Iterator[CollectiveCalls]:
    """Weights gathered before each pass (once where they are kept), gradients scattered, then summed over copies.

    Source: Rajbhandari et al. 2020 (ZeRO), arXiv 1910.02054, section 7; Zhao et al. 2023 (FSDP), arXiv 2304.11277, section 3.2.2.
    """
    gather, scatter = WIDTH_BYTES * unit.n_padded, GRADIENT_BYTES * unit.n_padded
    yield from _some(Phase.FORWARD, Collective.ALL_GATHER, unit.shards, gather, unit.n_alike)
    if plan.sharding is Sharding.ZERO3:
        yield from _some(Phase.BACKWARD, Collective.ALL_GATHER, unit.shards, gather, unit.n_alike)
    yield from _some(Phase.BACKWARD, Collective.REDUCE_SCATTER, unit.shards, scatter, unit.n_alike)
    share = scatter // unit.shards[1]
    yield from _some(Phase.BACKWARD, Collective.ALL_REDUCE, unit.copies, share, unit.n_alike)


def tensor_calls(shape: ModelShape, plan: ParallelPlan, T: int) -> Iterator[CollectiveCalls]:
    """Activations [T, D] gathered before and scattered after each half of a layer, and the other way round in the backward pass.

    The head's input and logits are gathered too, the embedding's output scattered. A norm's weight and the router see a part of
    the sequence or of the units on each rank: their gradients are summed.
    Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4.2.2.
    """
    tp, halves, again = plan.tensor_parallel_size, 1 + bool(shape.d_ff) + shape.is_moe, plan.recompute
    activations, through = WIDTH_BYTES * T * shape.d_model, shape.n_layers * halves + 1
    n_gathered = shape.n_layers * {Recompute.NONE: 0, Recompute.SELECTIVE: 1, Recompute.FULL: halves}[again]
    # what is computed again ends with the last tensor that the backward pass needs: a sum that no norm follows is not needed
    n_scattered = shape.n_layers * (halves if shape.sandwich_norm else halves - 1) if again is Recompute.FULL else 0
    gather, scatter, reduce = Collective.ALL_GATHER, Collective.REDUCE_SCATTER, Collective.ALL_REDUCE
    for phase, collective, n_bytes, n_calls in (
        (Phase.FORWARD, gather, activations, through),
        (Phase.FORWARD, scatter, activations, through),
        (Phase.FORWARD, gather, WIDTH_BYTES * T * shape.vocab_size, 1),
        (Phase.BACKWARD, gather, activations, through + n_gathered),
        (Phase.BACKWARD, scatter, activations, through + n_scattered),
        (Phase.BACKWARD, reduce, WIDTH_BYTES * shape.d_model, n_norms(shape) * shape.n_layers + 1),
        (Phase.BACKWARD, reduce, WIDTH_BYTES * T * shape.n_experts, shape.n_layers * shape.is_moe),
    ):
        yield from _some(phase, collective, (MeshAxis.TENSOR, tp), n_bytes, n_calls)


def context_calls(shape: ModelShape, plan: ParallelPlan, T: int) -> Iterator[CollectiveCalls]:
    """Keys and values [T * cp, K, d] of every layer gathered, their gradients scattered.

    Source: Grattafiori et al. 2024, arXiv 2407.21783, section 3.3.2.
    """
    cp, K = plan.context_parallel_size, shape.n_kv_heads // plan.tensor_parallel_size
    n_bytes, n_calls = WIDTH_BYTES * T * cp * K * shape.head_dim, 2 * shape.n_layers
    is_world = cp == plan.world_size and plan.sharding is not Sharding.NONE  # then one group carries both
    group = (MeshAxis.DATA_SHARD if is_world else MeshAxis.CONTEXT, cp)
    yield from _some(Phase.FORWARD, Collective.ALL_GATHER, group, n_bytes, n_calls)
    if plan.recompute is not Recompute.NONE:
        yield from _some(Phase.BACKWARD, Collective.ALL_GATHER, group, n_bytes, n_calls)
    yield from _some(Phase.BACKWARD, Collective.REDUCE_SCATTER, group, n_bytes, n_calls)


def expert_calls(shape: ModelShape, plan: ParallelPlan, T: int) -> Iterator[CollectiveCalls]:
    """Slots [E, C, D] of every layer there and back, in each pass. Source: Lepikhin et al. 2020, arXiv 2006.16668, section 3.1."""
    if not shape.is_moe:
        return
    C = min(T, math.ceil(T * (shape.experts_top_k * shape.expert_capacity_factor / shape.n_experts)))
    n_bytes, n_calls = WIDTH_BYTES * shape.n_experts * C * shape.d_model, 2 * shape.n_layers
    passes = 2 if plan.recompute is Recompute.FULL else 1
    for phase, n in ((Phase.FORWARD, 1), (Phase.BACKWARD, passes)):
        yield from _some(phase, Collective.ALL_TO_ALL, (MeshAxis.EXPERT, plan.expert_parallel_size), n_bytes, n * n_calls)


def _some(phase: Phase, collective: Collective, group: Group, n_bytes: int, n_calls: int) -> Iterator[CollectiveCalls]:
    """The calls, or none where there are none or nobody to send to."""
    axis, n_ranks = group
    if n_ranks > 1 and n_calls:
        yield CollectiveCalls(phase=phase, collective=collective, axis=axis, group_size=n_ranks, n_bytes=n_bytes, n_calls=n_calls)
