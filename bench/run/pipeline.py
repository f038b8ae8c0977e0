"""Pipeline parallelism: stages of layers, torch's schedules, and the two ends of a tied embedding kept equal."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B
from torch.distributed.tensor import DTensor

from bench.facts.breakdown import Phase
from bench.run.mesh import Mesh
from bench.run.transformer import Transformer

Schedule = Schedule1F1B | ScheduleInterleaved1F1B


def cut_stage(model: Transformer, index: int, n_stages: int) -> Transformer:
    """The model with only the layers, and the ends, of one stage left."""
    per_stage = len(model.layers) // n_stages
    model.layers = nn.ModuleList(list(model.layers)[index * per_stage : (index + 1) * per_stage])
    if index > 0:
        model.embedding = model.positions = None
    if index < n_stages - 1:
        model.head = None
        model.norm = nn.Identity()
    return model


def own_stages(rank: int, n_ranks: int, n_virtual: int) -> tuple[int, ...]:
    """Stages of one pipeline rank: every n-th, so that a micro-batch passes each rank `n_virtual` times.

    Source: Narayanan et al. 2021, arXiv 2104.04473, section 2.2.

    >>> own_stages(1, 4, 2)
    (1, 5)
    """
    return tuple(rank + n_ranks * chunk for chunk in range(n_virtual))


def make_stages(models: Sequence[Transformer], mesh: Mesh, device: torch.device) -> list[PipelineStage]:
    """This rank's stages, in the order in which a micro-batch passes them."""
    n_ranks, group = mesh.plan.pipeline_parallel_size, mesh.group("pp")
    indices = own_stages(mesh.place("pp"), n_ranks, len(models))
    return [PipelineStage(m, i, n_ranks * len(models), device, group=group) for m, i in zip(models, indices, strict=True)]


def make_schedule(stages: Sequence[PipelineStage], last: Transformer, n_micro_batches: int) -> Schedule:
    """1F1B over this rank's stages, interleaved where it has several. The loss is looked up on every call, so that it can be timed."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return last.loss(logits, targets)

    if len(stages) == 1:
        return Schedule1F1B(stages[0], n_micro_batches, loss_fn=loss)
    return ScheduleInterleaved1F1B(list(stages), n_micro_batches, loss_fn=loss)


class Pipeline:
    """One optimizer step's passes through the pipeline."""

    def __init__(self, models: Sequence[Transformer], mesh: Mesh, device: torch.device, n_micro_batches: int) -> None:
        self._stages, self._last = make_stages(models, mesh, device), models[-1]
        self._schedule = make_schedule(self._stages, self._last, n_micro_batches)
        self._is_first, self._is_last = models[0].embedding is not None, models[-1].head is not None
        self._even_ends = tie_ends(models, mesh) if models[0].shape.tied_embedding else None
        self._nothing = torch.zeros((), device=device)

    def run(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of all micro-batches on the last stage, 0 elsewhere; both inputs [n * micro_batch_size, S]."""
        losses: list[Tensor] = []
        given = (tokens,) if self._is_first else ()
        self._schedule.step(*given, target=targets if self._is_last else None, losses=losses if self._is_last else None)
        if self._even_ends is not None:
            self._even_ends()
        return torch.stack(losses).mean().detach() if losses else self._nothing

    @contextmanager
    def cut(self, mark: Callable[[Phase], None]) -> Iterator[None]:
        """While it is open, every pass of this rank's stages is a phase, and what lies between them is the bubble."""
        cuts: list[tuple[object, str, Phase, Phase]] = [
            (self._schedule, "step", Phase.DATA, Phase.BUBBLE),
            (self._last, "loss", Phase.BUBBLE, Phase.FORWARD),
        ]
        for stage in self._stages:
            cuts.append((stage, "forward_one_chunk", Phase.BUBBLE, Phase.FORWARD))
            cuts.append((stage, "backward_one_chunk", Phase.BUBBLE, Phase.BACKWARD))
        for owner, name, before, after in cuts:
            setattr(owner, name, _between(getattr(owner, name), before, after, mark))
        try:
            yield
        finally:
            for owner, name, _, _ in cuts:
                delattr(owner, name)


def _between(call: Callable[..., Any], before: Phase, after: Phase, mark: Callable[[Phase], None]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        mark(before)
        out = call(*args, **kwargs)
        mark(after)
        return out

    return timed


def tie_ends(models: Sequence[Transformer], mesh: Mesh) -> Callable[[], None] | None:
    """What adds up the gradients of embedding and head, which are one weight on two stages; None on stages between."""
    pair = _end_group(mesh)
    first, last = models[0].embedding, models[-1].head
    if pair is None or (first is None and last is None):
        return None

    def even() -> None:
        # looked up now: sharding has put another parameter in the place of the first
        weight = first.weight if first is not None else last.weight if last is not None else None
        assert weight is not None
        assert weight.grad is not None
        grad = weight.grad
        dist.all_reduce(grad.to_local() if isinstance(grad, DTensor) else grad, group=pair)

    return even


def _end_group(mesh: Mesh) -> ProcessGroup | None:
    """The group of this rank's counterparts on the first and the last stage. Every rank makes all groups, in one order."""
    columns = mesh.axes.mesh.reshape(mesh.plan.pipeline_parallel_size, -1)
    own = None
    for column in columns.T.tolist():
        group = dist.new_group([column[0], column[-1]])
        if dist.get_rank() in (column[0], column[-1]):
            own = group
    return own
