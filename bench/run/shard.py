"""The transformer as one device of a big plan holds it, on a device that is alone.

Every width is the plan's: heads, feed-forward, experts, vocabulary, sequence. What would come over the network is made up
here from what the device has, in the size that would arrive, so that every product and every pass over memory has its
full-size shape. Values mean nothing; shapes do. B batch, s tokens of this device outside the products, D model width.
"""

from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.utils.checkpoint import checkpoint

from bench.facts.model import ModelShape
from bench.facts.plan import ParallelPlan, Recompute
from bench.facts.shard import local_shape, n_experts_held
from bench.run.context import ContextAttention
from bench.run.transformer import DenseAndExperts, ExpertMatrices, Experts, Mix, Transformer


def gathered(x: Tensor, n_ranks: int) -> Tensor:
    """[B, n * s, ..] from [B, s, ..], where all-gather would bring what the other ranks have; backward adds the n parts up."""
    return x if n_ranks == 1 else torch.cat([x] * n_ranks, dim=1)


def scattered(x: Tensor, n_ranks: int) -> Tensor:
    """[B, s, ..] from [B, n * s, ..]: the sum of n parts that reduce-scatter makes; backward copies as all-gather does."""
    return x if n_ranks == 1 else x.view(x.shape[0], n_ranks, -1, *x.shape[2:]).sum(1)


class GatheredSequence(nn.Module):
    """[B, s, D] through products over the tokens of all tensor-parallel ranks. Source: Korthikanti et al. 2022, section 4.2.2."""

    def __init__(self, inner: nn.Module, n_ranks: int) -> None:
        super().__init__()
        self.inner, self.n_ranks = inner, n_ranks

    def forward(self, x: Tensor, *more: Any) -> Tensor:
        return scattered(self.inner(gathered(x, self.n_ranks), *more), self.n_ranks)


class LoneContext(ContextAttention):
    """Attention of the first context-parallel rank: an early and a late chunk of queries over the keys that each may see."""

    def _in_order(self, x: Tensor) -> Tensor:
        return gathered(x, self.n_ranks)


class ArrivedSlots(nn.Module):
    """Slots [E, C, D] that this device fills, as E / ep experts with the slots of all expert- and tensor-parallel ranks each.

    All-to-all sends as much as it brings, so the same slots stand in for those that would arrive.
    """

    def __init__(self, matrices: ExpertMatrices, n_held: int, n_ranks: int) -> None:
        super().__init__()
        self.matrices, self.n_held, self.n_ranks = matrices, n_held, n_ranks

    def forward(self, slots: Tensor) -> Tensor:
        arrived = gathered(slots.reshape(self.n_held, -1, slots.shape[-1]), self.n_ranks)
        return scattered(self.matrices(arrived), self.n_ranks).reshape(slots.shape)


class ShardTransformer(Transformer):
    """Logits [B, S / cp, V / tp] of `n_layers` layers on one device of the plan."""

    def __init__(self, whole: ModelShape, plan: ParallelPlan, n_layers: int) -> None:
        super().__init__(replace(local_shape(whole, plan), n_layers=n_layers))
        self.n_ranks = plan.tensor_parallel_size
        for layer in cast(Any, self.layers):
            layer.attention.mix = _mix(layer.attention.mix, whole, plan)
            layer.attention = GatheredSequence(layer.attention, self.n_ranks)
            layer.feed_forward = _feed_forward(layer.feed_forward, whole, plan)
        self.recompute_layers = plan.recompute is Recompute.FULL
        self.initialise()  # once more: experts were replaced

    def run_layers(self, x: Tensor) -> Tensor:
        """[B, s, D] after every layer."""
        for layer in self.layers:
            x = checkpoint(layer, x, self.rotary, use_reentrant=False) if self.recompute_layers else layer(x, self.rotary)
        return x

    def embed(self, tokens: Tensor) -> Tensor:
        """[B, s, D] of tokens [B, n * s]: every rank looks all of them up in its part of the table."""
        return scattered(super().embed(tokens), self.n_ranks)

    def logits(self, x: Tensor) -> Tensor:
        """[B, n * s, V / n] of x [B, s, D]."""
        return super().logits(gathered(x, self.n_ranks))


def _mix(mix: Mix, whole: ModelShape, plan: ParallelPlan) -> Mix:
    if plan.context_parallel_size > 1:
        mix = LoneContext(cast(ProcessGroup, None), 0, plan.context_parallel_size, whole.attention_softcap)
    return partial(checkpoint, mix, use_reentrant=False) if plan.recompute is Recompute.SELECTIVE else mix


def _feed_forward(module: nn.Module, whole: ModelShape, plan: ParallelPlan) -> nn.Module:
    if isinstance(module, DenseAndExperts):
        module.dense = cast(Any, _feed_forward(module.dense, whole, plan))
        module.experts = cast(Any, _feed_forward(module.experts, whole, plan))
        return module
    if not isinstance(module, Experts):
        return GatheredSequence(module, plan.tensor_parallel_size)
    held = n_experts_held(whole, plan)
    matrices = ExpertMatrices(replace(local_shape(whole, plan), n_experts=held, experts_top_k=min(whole.experts_top_k, held)))
    module.matrices = cast(Any, ArrivedSlots(matrices, held, plan.tensor_parallel_size))
    return module
