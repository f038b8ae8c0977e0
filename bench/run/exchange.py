"""Collectives that autograd passes through, each with the other as its gradient."""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from bench.run import exchange_payload


def gather_parts(x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    """[.., n * s, ..] from the [.., s, ..] of every rank; gradients of all ranks are added before each takes its part.

    Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4.2.2 (g and its conjugate).
    """
    return cast(Tensor, _Gather.apply(x, dim, group))  # type: ignore[no-untyped-call]


def scatter_sum(x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    """[.., s, ..], this rank's part of the sum over ranks of [.., n * s, ..]; the gradient is joined from all."""
    return cast(Tensor, _ReduceScatter.apply(x, dim, group))  # type: ignore[no-untyped-call]


def exchange_blocks(x: Tensor, group: ProcessGroup) -> Tensor:
    """[n, ..] whose block i was block r of rank i, r the rank here; the gradient goes the same way, which undoes it."""
    return cast(Tensor, _AllToAll.apply(x, group))  # type: ignore[no-untyped-call]


def sum_gradient(x: Tensor, group: ProcessGroup) -> Tensor:
    """The tensor itself; its gradient, of which every rank holds a part, is added up."""
    return cast(Tensor, _SumGradient.apply(x, group))  # type: ignore[no-untyped-call]


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """The tensor itself; its gradient times `factor`."""
    return cast(Tensor, _ScaleGradient.apply(x, factor))  # type: ignore[no-untyped-call]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
        ctx.dim, ctx.group = dim, group
        return _gather(x, dim, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _reduce_scatter(grad, ctx.dim, ctx.group), None, None


class _ReduceScatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
        ctx.dim, ctx.group = dim, group
        return _reduce_scatter(x, dim, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _gather(grad, ctx.dim, ctx.group), None, None


class _AllToAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _all_to_all(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _all_to_all(grad, ctx.group), None


class _SumGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


def _gather(x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    first = x.movedim(dim, 0).contiguous()
    joined = first.new_empty((dist.get_world_size(group) * first.shape[0], *first.shape[1:]))
    exchange_payload.gather_whole(joined, first, group=group)
    return joined.movedim(0, dim)


def _reduce_scatter(x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    first = x.movedim(dim, 0).contiguous()
    part = first.new_empty((first.shape[0] // dist.get_world_size(group), *first.shape[1:]))
    exchange_payload.scatter_sum(part, first, group=group)
    return part.movedim(0, dim)


def _all_to_all(x: Tensor, group: ProcessGroup) -> Tensor:
    given = x.contiguous()
    taken = torch.empty_like(given)
    dist.all_to_all_single(taken, given, group=group)
    return taken
