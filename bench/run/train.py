"""One training step, and everything that must be there for it."""

import time

import torch
import torch.distributed as dist
from torch import Tensor

from bench.errors import UsageError
from bench.facts.hardware import Backend, Precision
from bench.facts.plan import ParallelPlan, Sharding
from bench.facts.run import RunSpec
from bench.on_demand import on_demand
from bench.run.dealt import own_part
from bench.run.devices import LocalDevice
from bench.run.float8 import refuse_float8
from bench.run.passes import AUTOCAST, Passes
from bench.run.record import Health
from bench.run.replicated import Replicated


class Trainer:
    """A model, an optimizer and data on this rank's device, laid out for the plan. `step` is what is measured."""

    def __init__(self, spec: RunSpec, device: LocalDevice) -> None:
        begun = time.perf_counter()
        refuse_precision(spec, device)
        world_size = dist.get_world_size() if dist.is_initialized() else 1
        if world_size != spec.world_size:
            raise UsageError(f"world size {world_size} runs where {spec.world_size} was asked for")
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.spec = spec
        laid_out = Replicated if is_replicated(spec.plan) else on_demand("bench.run.meshed", "Meshed")
        self.passes: Passes = laid_out(spec, device)
        device.synchronize()
        self.n_done = 0  # optimizer steps, timed or not, since the training began
        self._losses: list[Tensor] | None = None
        self.setup_s = time.perf_counter() - begun

    @property
    def n_parameters(self) -> int:
        """Parameters of the whole model."""
        return self.passes.n_parameters

    def step(self) -> Tensor:
        """Mean loss of this rank's micro-batches, still on the device, after one optimizer step."""
        loss = self.passes.run()
        self._update(loss)
        return loss

    def _update(self, loss: Tensor) -> None:
        self.passes.optimizer.step()
        self.passes.optimizer.zero_grad(set_to_none=True)
        self.n_done += 1
        if self._losses is not None:
            self._losses.append(loss)

    def go_to(self, step: int) -> None:
        """Nothing; so many steps are done, and the next one reads the tokens that follow theirs."""
        self.passes.go_to(step)
        self.n_done = step

    def keep_losses(self) -> None:
        """Nothing; from now on the loss of every step stays on the device until it is taken."""
        self._losses = []

    def take_losses(self) -> list[float]:
        """Losses of this rank's steps since they were last taken; waits for the device."""
        taken = torch.stack(self._losses).tolist() if self._losses else []
        self._losses = []
        return taken

    def examine(self) -> Health:
        """Loss and gradient norm of the whole world in one untimed step, and the sums of this rank's parameters after it."""
        loss = self.passes.run()
        norm = self.passes.squared_gradient_norm().sqrt()
        self._update(loss)
        summed = loss.clone()
        if self.spec.world_size > 1:
            dist.all_reduce(summed)
        held = [own_part(p) for p in self.passes.parameters]
        return Health(
            loss=self.world_loss(float(summed)),
            grad_norm=float(norm),
            parameter_sums=tuple(float(p.detach().double().sum()) for p in held if p.numel()),
        )

    def world_loss(self, summed: float) -> float:
        """The mean loss of the world, from the sum over its ranks: one stage of each pipeline tells a loss, all others 0."""
        return summed * self.spec.plan.pipeline_parallel_size / self.spec.world_size


def is_replicated(plan: ParallelPlan) -> bool:
    """Whether every rank holds the whole model: the plan that accelerate and DDP run, and any plan of one rank."""
    return plan.world_size == 1 or (
        plan.model_parallel_size == plan.expert_parallel_size == 1 and plan.sharding in (Sharding.NONE, Sharding.ZERO1)
    )


def refuse_precision(spec: RunSpec, device: LocalDevice) -> None:
    """Nothing; raises UsageError where the device or the plan cannot train in the precision asked for."""
    asked, is_gpu = spec.train.precision, device.backend in (Backend.CUDA, Backend.ROCM)
    if asked is Precision.FP8:
        refuse_float8(device, is_replicated(spec.plan))
    if asked is Precision.FP16 and not (is_gpu and is_replicated(spec.plan)):
        raise UsageError(f"train.precision: fp16 given; its loss scaler runs on a GPU with plan=ddp, this is {device.backend}; use bf16")
    assert asked in AUTOCAST
