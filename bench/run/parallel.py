"""A transformer laid over a device mesh with torch's own calls: tensor, context and expert parallel, recompute, sharding.

Order matters and is that of torchtitan: split tensors, then wrap for recompute, then compile, then shard.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from bench.facts.plan import Sharding
from bench.run.context import ContextAttention, own_positions
from bench.run.exchange import exchange_blocks, gather_parts, scale_gradient, scatter_sum, sum_gradient
from bench.run.mesh import Mesh
from bench.run.recompute import recompute
from bench.run.transformer import Attention, Block, DenseAndExperts, ExpertMatrices, Experts, FeedForward, Transformer

SEQUENCE = Shard(1)  # of an activation [B, S, D]


def lay_out(model: Transformer, mesh: Mesh, precision: torch.dtype | None, compiled: bool) -> Transformer:
    """The model, changed in place: this rank's shards of it, wrapped. A pipeline stage is laid out like a whole model."""
    plan = mesh.plan
    if plan.tensor_parallel_size > 1:
        _split_tensors(model, mesh.dense["tp"])
    if plan.context_parallel_size > 1:
        _split_sequence(model, mesh)
    if plan.expert_parallel_size > 1:
        for matrices in _all(model, ExpertMatrices):
            _split_experts(matrices, mesh)
    recompute(model, plan.recompute)
    if compiled:
        for layer in model.layers:
            layer.compile()
    _shard(model, mesh, precision)
    return model


def _all(model: nn.Module, kind: type[Any]) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


def _split_tensors(model: Transformer, mesh: DeviceMesh) -> None:
    """Megatron's tensor and sequence parallelism. Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4.2."""
    ends: dict[str, ParallelStyle] = {}
    if model.embedding is not None:
        ends["embedding"] = RowwiseParallel(input_layouts=Replicate(), output_layouts=SEQUENCE)
    if model.head is not None:
        ends["norm"] = SequenceParallel(use_local_output=True)
        ends["head"] = ColwiseParallel(input_layouts=SEQUENCE, output_layouts=Replicate())
        model.owns_logits = False
    parallelize_module(model, mesh, ends)
    if model.shape.tied_embedding and model.embedding is not None and model.head is not None:
        model.head.weight = model.embedding.weight
    for block in model.layers:
        parallelize_module(block, mesh, _block_styles(block))


def _block_styles(block: Any) -> dict[str, ParallelStyle]:
    assert isinstance(block, Block)
    styles: dict[str, ParallelStyle] = {
        name: SequenceParallel(use_local_output=True)
        for name in ("attention_norm", "attention_post_norm", "feed_forward_norm", "feed_forward_post_norm")
        if not isinstance(getattr(block, name), nn.Identity)
    }
    styles["attention"] = PrepareModuleInput(input_layouts=(SEQUENCE, None), desired_input_layouts=(Replicate(), None))
    styles |= {f"attention.{name}": ColwiseParallel() for name in ("q", "k", "v")}
    styles["attention.o"] = RowwiseParallel(output_layouts=SEQUENCE)
    return styles | _feed_forward_styles(block.feed_forward, "feed_forward")


def _feed_forward_styles(module: nn.Module, name: str) -> dict[str, ParallelStyle]:
    if isinstance(module, DenseAndExperts):
        return _feed_forward_styles(module.dense, f"{name}.dense") | _feed_forward_styles(module.experts, f"{name}.experts")
    if isinstance(module, Experts):
        return {name: SplitExpertUnits()}
    assert isinstance(module, FeedForward)
    styles: dict[str, ParallelStyle] = {name: PrepareModuleInput(input_layouts=(SEQUENCE,), desired_input_layouts=(Replicate(),))}
    styles |= {f"{name}.{part}": ColwiseParallel() for part in ("up", "gate") if getattr(module, part) is not None}
    styles[f"{name}.down"] = RowwiseParallel(output_layouts=SEQUENCE)
    return styles


class SplitExpertUnits(ParallelStyle):
    """Every rank holds a share of the F units of every expert, and routes the gathered sequence as all others do.

    The sequence is gathered before and its partial sums are scattered after. Gates are used by every rank for its share of
    the units: their gradient is summed, so that the router's is whole, and goes back into the tokens by shares.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        assert isinstance(module, Experts)
        group, rank, n = device_mesh.get_group(), device_mesh.get_local_rank(), device_mesh.size()
        matrices = module.matrices
        for name, dim in (("up", 2), ("gate", 2), ("down", 1)):
            whole = getattr(matrices, name)
            if whole is not None:
                setattr(matrices, name, nn.Parameter(whole.detach().chunk(n, dim)[rank].clone()))
        module.register_forward_pre_hook(lambda _, args: (gather_parts(args[0], 1, group),))
        module.register_forward_hook(lambda _, __, out: scatter_sum(out, 1, group))
        module.router.register_forward_pre_hook(lambda _, args: (scale_gradient(args[0], 1 / n),))
        module.router.register_forward_hook(lambda _, __, out: sum_gradient(out, group))
        return module


def _split_sequence(model: Transformer, mesh: Mesh) -> None:
    """Attention gathers keys and values; positions are those of the two chunks that this rank holds."""
    rank, n = mesh.place("cp"), mesh.plan.context_parallel_size
    positions = own_positions(model.shape.seq_len, rank, n)
    model.order = positions.to(model.order.device)
    if model.rotary is not None:
        model.rotary = model.rotary[:, model.order]
    for attention in _all(model, Attention):
        attention.mix = ContextAttention(mesh.group("cp"), rank, n, model.shape.attention_softcap)


def _split_experts(matrices: ExpertMatrices, mesh: Mesh) -> None:
    """Each rank holds its share of the experts; slots travel there and back. Source: Lepikhin et al. 2020, arXiv 2006.16668."""
    group, rank, n = mesh.group("ep"), mesh.place("ep"), mesh.plan.expert_parallel_size
    for name in ("up", "gate", "down"):
        whole = getattr(matrices, name)
        if whole is not None:
            setattr(matrices, name, nn.Parameter(whole.detach().chunk(n)[rank].clone()))

    def there(slots: Tensor) -> Tensor:
        """[E / n, n * C, D] of all ranks' tokens for this rank's experts, from its own tokens' [E, C, D]."""
        E, C, D = slots.shape
        taken = exchange_blocks(slots.view(n, E // n, C, D), group).transpose(0, 1).reshape(E // n, n * C, D)
        return scale_gradient(taken, n)

    def back(out: Tensor) -> Tensor:
        e, nC, D = out.shape
        # a share of the experts has seen n ranks' tokens: its gradient is a sum where that of other weights is a mean
        given = scale_gradient(out, 1 / n).view(e, n, nC // n, D).transpose(0, 1)
        return exchange_blocks(given, group).reshape(n * e, nC // n, D)

    matrices.register_forward_pre_hook(lambda _, args: (there(args[0]),))
    matrices.register_forward_hook(lambda _, __, out: back(out))


def _shard(model: Transformer, mesh: Mesh, precision: torch.dtype | None) -> None:
    """FSDP2 on every layer and the whole. A plan that shares nothing has a shard axis of one: gradients are all-reduced."""
    policy = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32)
    reshard = mesh.plan.sharding is Sharding.ZERO3
    for layer in model.layers:
        if mesh.plan.expert_parallel_size > 1:
            for matrices in _all(layer, ExpertMatrices):
                fully_shard(matrices, mesh=mesh.expert_data, mp_policy=policy, reshard_after_forward=reshard)
        fully_shard(layer, mesh=mesh.data, mp_policy=policy, reshard_after_forward=reshard)
    fully_shard(model, mesh=mesh.data, mp_policy=policy, reshard_after_forward=reshard)


def assert_laid_out(model: Transformer, mesh: Mesh) -> None:
    """Nothing; what was asked for is what the wrapped model holds."""
    plan, shape = mesh.plan, mesh.dense
    assert isinstance(model, FSDPModule)
    assert shape.size() == plan.world_size, (shape, plan)
    attention = _all(model, Attention)[0]
    placements = {str(p) for p in attention.q.weight.placements}
    sharded_by_tp = attention.q.weight.device_mesh.ndim == 3 and "S(0)" in str(placements)
    assert sharded_by_tp or plan.tensor_parallel_size == 1, placements
    assert isinstance(attention.mix, ContextAttention) == (plan.context_parallel_size > 1)
    for matrices in _all(model, ExpertMatrices):
        n_local = matrices.up.to_local().shape[0] * matrices.up.device_mesh["shard"].size()
        assert n_local >= model.shape.n_experts // plan.expert_parallel_size, matrices.up.shape
