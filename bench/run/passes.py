"""What every kind of plan offers to the training step, and the optimizer that all share."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from bench.facts.breakdown import Phase
from bench.facts.hardware import Backend, Precision
from bench.facts.run import RunSpec
from bench.run.dealt import is_dealt
from bench.run.devices import LocalDevice

AUTOCAST = {
    Precision.FP32: None,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
    Precision.FP8: torch.bfloat16,
}


class Cut(Protocol):
    """Passes that can be cut at the boundaries of their phases."""

    def cut(self, mark: Callable[[Phase], None]) -> AbstractContextManager[None]:
        """While it is open, `mark` hears of the end of every phase."""
        ...


class Passes(Protocol):
    """How a plan runs the forward and backward passes of one optimizer step."""

    parameters: list[nn.Parameter]
    models: list[nn.Module]  # as they are called in a pass, with every wrapper
    optimizer: torch.optim.Optimizer
    n_parameters: int  # of the whole model
    pipeline: Cut | None  # where its layers are dealt out in stages

    def run(self) -> Tensor:
        """Mean loss of this rank's micro-batches, still on the device; gradients are reduced."""
        ...

    def go_to(self, step: int) -> None:
        """Nothing; the next tokens are those of the optimizer step after so many."""
        ...

    def squared_gradient_norm(self) -> Tensor:
        """Squared norm of the whole model's gradient, the same on every rank."""
        ...


def make_optimizer(parameters: Iterable[nn.Parameter], spec: RunSpec, device: LocalDevice) -> torch.optim.Optimizer:
    """AdamW over this rank's parameters, fused where torch can; tensors on different meshes in groups of their own."""
    groups: dict[str, list[nn.Parameter]] = {}
    for parameter in parameters:
        mesh = str(parameter.device_mesh) if is_dealt(parameter) else "none"
        groups.setdefault(mesh, []).append(parameter)
    return torch.optim.AdamW(
        [{"params": group} for group in groups.values()],
        lr=spec.train.learning_rate,
        weight_decay=spec.train.weight_decay,
        fused=device.backend is not Backend.MPS,
    )
