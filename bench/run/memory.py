"""Bytes of one rank's device: what stays between steps, tensor by tensor, and the peak that torch counted."""

from collections.abc import Iterable

import torch
from torch import Tensor

from bench.facts.breakdown import MemoryUse
from bench.facts.hardware import Backend
from bench.run.dealt import own_part
from bench.run.devices import LocalDevice
from bench.run.train import Trainer


def memory_use(trainer: Trainer, device: LocalDevice) -> MemoryUse:
    """The use of this rank's device, after training steps."""
    parameters = trainer.passes.parameters
    optimizer = getattr(trainer.passes.optimizer, "optimizer", trainer.passes.optimizer)
    inner = getattr(optimizer, "optim", optimizer)  # the shard that a ZeroRedundancyOptimizer steps
    parameters_bytes = tensor_bytes(parameters)
    gradients_bytes = tensor_bytes(p for p in parameters if p.requires_grad)  # each as large as its parameter
    optimizer_bytes = tensor_bytes(value for state in inner.state.values() for value in state.values() if isinstance(value, Tensor))
    allocated, reserved = device.peak_memory_bytes()
    counted = allocated is not None
    counts = torch.cuda.memory_stats(device.local_rank) if device.backend in (Backend.CUDA, Backend.ROCM) else {}
    return MemoryUse(
        rank=trainer.rank,
        parameters_bytes=parameters_bytes,
        gradients_bytes=gradients_bytes,
        optimizer_bytes=optimizer_bytes,
        activations_bytes=None if allocated is None else max(0, allocated - parameters_bytes - gradients_bytes - optimizer_bytes),
        peak_allocated_bytes=allocated,
        peak_reserved_bytes=reserved if counted else None,
        n_retries=counts.get("num_alloc_retries"),
        n_out_of_memory=counts.get("num_ooms"),
    )


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the tensors as this rank holds them; one that several names share counts once."""
    local = [own_part(t) for t in tensors]
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in local if t.numel()}.values())
