"""Whole copies of the model on every rank, by accelerate: placement, precision, accumulation, DDP; ZeRO-1 on request."""

import warnings
from contextlib import nullcontext

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from bench.facts.hardware import Precision
from bench.facts.plan import Sharding
from bench.facts.run import RunSpec
from bench.on_demand import on_demand
from bench.run.data import TokenPool
from bench.run.devices import LocalDevice
from bench.run.float8 import use_float8
from bench.run.passes import Cut, make_optimizer
from bench.run.recompute import recompute
from bench.run.transformer import Transformer

MIXED_PRECISION = {Precision.FP32: "no", Precision.BF16: "bf16", Precision.FP16: "fp16", Precision.FP8: "bf16"}


class Replicated:
    """Passes of a data-parallel plan: gradients are averaged while the backward pass runs."""

    pipeline: Cut | None = None

    def __init__(self, spec: RunSpec, device: LocalDevice) -> None:
        self._accelerator = Accelerator(
            cpu=device.is_cpu,
            mixed_precision=MIXED_PRECISION[spec.train.precision],
            gradient_accumulation_steps=spec.batch.n_micro_batches,
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)],
        )
        torch.manual_seed(spec.train.seed)
        with device.torch_device:  # drawing a billion weights takes a CPU ten seconds
            bare = Transformer(spec.model)
        if spec.train.precision is Precision.FP8:
            use_float8(bare)
        self.parameters = list(bare.parameters())
        self.n_parameters = sum(p.numel() for p in self.parameters)
        recompute(bare, spec.plan.recompute)
        model: nn.Module = torch.compile(bare) if spec.train.compiled else bare  # type: ignore[assignment]
        with warnings.catch_warnings():
            # torch 2.13 renames DDP's broadcast_buffers; accelerate and torch 2.11 know only the old name
            warnings.filterwarnings("ignore", "`?broadcast_buffers", FutureWarning)
            self.model = self._accelerator.prepare(model)
        self.optimizer = self._make_optimizer(spec, device)
        self._data = TokenPool(spec, self._accelerator.process_index, device.torch_device)
        self._n_micro_batches = spec.batch.n_micro_batches
        # one pass per step has nothing to accumulate, and without fp16 nothing to scale: then nothing is spent on either
        self._is_plain = self._n_micro_batches == 1 and spec.train.precision is not Precision.FP16
        self.models = [self.model]
        wrapped = isinstance(self.model, nn.parallel.DistributedDataParallel)
        assert wrapped == (spec.world_size > 1), type(self.model)

    def run(self) -> Tensor:
        """See Passes."""
        losses = [self._micro_batch() for _ in range(self._n_micro_batches)]
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _micro_batch(self) -> Tensor:
        tokens, targets = self._data.micro_batch()
        with nullcontext() if self._is_plain else self._accelerator.accumulate(self.model):
            loss: Tensor = self.model(tokens, targets)
            if self._is_plain:
                loss.backward()  # type: ignore[no-untyped-call]
            else:
                self._accelerator.backward(loss)
        return loss.detach()

    def go_to(self, step: int) -> None:
        """See Passes."""
        self._data.go_to(step)

    def squared_gradient_norm(self) -> Tensor:
        """See Passes."""
        return torch.stack([p.grad.double().square().sum() for p in self.parameters if p.grad is not None]).sum()

    def _make_optimizer(self, spec: RunSpec, device: LocalDevice) -> torch.optim.Optimizer:
        if spec.plan.sharding is not Sharding.ZERO1 or spec.world_size == 1:
            bare = make_optimizer(self.parameters, spec, device)
            # accelerate's wrapper holds the loss scaler of fp16, and costs 0.3 ms a step
            return self._accelerator.prepare(bare) if spec.train.precision is Precision.FP16 else bare
        zero = on_demand("torch.distributed.optim", "ZeroRedundancyOptimizer")
        more = {"lr": spec.train.learning_rate, "weight_decay": spec.train.weight_decay, "fused": True}
        sharded: torch.optim.Optimizer = zero(self.parameters, torch.optim.AdamW, **more)
        return sharded
