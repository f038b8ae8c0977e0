"""One training step, and everything that must be there for it."""

import time
import warnings

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from bench.errors import UsageError
from bench.facts.hardware import Backend, Precision
from bench.facts.run import RunSpec
from bench.run.data import TokenPool
from bench.run.devices import LocalDevice
from bench.run.record import Health
from bench.run.transformer import Transformer

MIXED_PRECISION = {Precision.FP32: "no", Precision.BF16: "bf16", Precision.FP16: "fp16"}


class Trainer:
    """A model, an optimizer and data on this rank's device, wrapped for the plan. `step` is what is measured."""

    def __init__(self, spec: RunSpec, device: LocalDevice) -> None:
        begun = time.perf_counter()
        self.spec = spec
        self._accelerator = make_accelerator(spec, device)
        self.rank = self._accelerator.process_index
        torch.manual_seed(spec.train.seed)
        model: nn.Module = Transformer(spec.model).to(device.torch_device)
        if spec.train.compiled:
            model = torch.compile(model)  # type: ignore[assignment]
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=spec.train.learning_rate, weight_decay=spec.train.weight_decay, fused=device.backend is not Backend.MPS
        )
        self._parameters = list(model.parameters())
        with warnings.catch_warnings():
            # torch 2.13 renames DDP's broadcast_buffers; accelerate and torch 2.11 know only the old name
            warnings.filterwarnings("ignore", "`?broadcast_buffers", FutureWarning)
            self._model, self._optimizer = self._accelerator.prepare(model, optimizer)
        self._data = TokenPool(
            spec.batch.micro_batch_size, spec.model.seq_len, spec.model.vocab_size, spec.train.seed + 1 + self.rank, device.torch_device
        )
        self._n_micro_batches = spec.batch.n_micro_batches
        self._assert_plan_runs()
        device.synchronize()
        self.setup_s = time.perf_counter() - begun

    @property
    def n_parameters(self) -> int:
        """Parameters of the whole model."""
        return sum(p.numel() for p in self._parameters)

    def step(self) -> Tensor:
        """Mean loss of the last micro-batch, still on the device, after one optimizer step."""
        for _ in range(self._n_micro_batches):
            loss = self._micro_batch()
        self._optimizer.zero_grad(set_to_none=True)
        return loss

    def _micro_batch(self) -> Tensor:
        tokens, targets = next(self._data)
        with self._accelerator.accumulate(self._model):
            loss: Tensor = self._model(tokens, targets)
            self._accelerator.backward(loss)
            self._optimizer.step()
        return loss.detach()

    def examine(self) -> Health:
        """Loss, gradient norm and parameter sums of one untimed step, over all ranks' data."""
        for _ in range(self._n_micro_batches):
            loss = self._micro_batch()
        squares = [p.grad.double().square().sum() for p in self._parameters if p.grad is not None]
        self._optimizer.zero_grad(set_to_none=True)
        mean_loss = self._accelerator.reduce(loss, "mean")
        return Health(
            loss=float(mean_loss),
            grad_norm=float(torch.stack(squares).sum().sqrt()) if squares else 0.0,
            parameter_sums=tuple(torch.stack([p.detach().double().sum() for p in self._parameters]).tolist()),
        )

    def _assert_plan_runs(self) -> None:
        if self._accelerator.num_processes != self.spec.world_size:
            raise UsageError(f"world size {self._accelerator.num_processes} runs where {self.spec.world_size} was asked for")
        wrapped = isinstance(self._model, nn.parallel.DistributedDataParallel)
        assert wrapped == (self.spec.plan.data_parallel_size > 1), type(self._model)


def make_accelerator(spec: RunSpec, device: LocalDevice) -> Accelerator:
    """The accelerator of this rank, which has joined the process group already."""
    if spec.train.precision not in MIXED_PRECISION:
        raise UsageError(f"train.precision: {spec.train.precision} given; a local run knows {', '.join(MIXED_PRECISION)}")
    if spec.train.precision is Precision.FP16 and device.backend is not Backend.CUDA and device.backend is not Backend.ROCM:
        raise UsageError(f"train.precision: fp16 given; the loss scaler needs a GPU, this is {device.backend}; use bf16")
    return Accelerator(
        cpu=device.is_cpu,
        mixed_precision=MIXED_PRECISION[spec.train.precision],
        gradient_accumulation_steps=spec.batch.n_micro_batches,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)],
    )
