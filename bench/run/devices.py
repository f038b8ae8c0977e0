"""The devices of this machine: which there are, how many, how much memory, and how to wait for them."""

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from bench.errors import UsageError
from bench.facts.hardware import Backend

RANKS_ON_A_CPU = 2  # enough that gradients really cross processes


def find_backend(asked: Backend | None) -> Backend:
    """The backend asked for, or the first accelerator that torch finds, or the CPU. Raises UsageError where it is not here."""
    here = _accelerator()
    if asked is None:
        return here or Backend.CPU
    if asked not in (here, Backend.CPU):
        raise UsageError(
            f"device.backend: {asked} given; torch {torch.__version__} finds {here or 'no accelerator'} here; use {here or 'cpu'}"
        )
    return asked


def _accelerator() -> Backend | None:
    if not torch.accelerator.is_available():
        return None
    kind = torch.accelerator.current_accelerator()
    if kind is None or kind.type not in ("cuda", "xpu", "mps"):
        return None
    return Backend.ROCM if kind.type == "cuda" and torch.version.hip else Backend(kind.type)


def torch_type(backend: Backend) -> str:
    """torch's name of the device type; ROCm presents itself as cuda."""
    return "cuda" if backend is Backend.ROCM else backend.value


def find_world_size(backend: Backend, asked: int | None) -> int:
    """Ranks on this machine: as asked, or one per accelerator, or two on a CPU that has two cores."""
    if backend is Backend.CPU:
        return asked or min(RANKS_ON_A_CPU, n_cores())
    here = 1 if backend is Backend.MPS else torch.accelerator.device_count()
    if asked and asked > here:
        raise UsageError(f"device.n_devices: {asked} given; this machine has {here}; use {here}")
    return asked or here


def n_cores() -> int:
    """Physical cores that this process may run on."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


@dataclass(frozen=True)
class LocalDevice:
    """The device of this rank."""

    backend: Backend
    local_rank: int

    @property
    def torch_device(self) -> torch.device:
        """The device as torch wants it."""
        return torch.device("cpu") if self.is_cpu else torch.device(torch_type(self.backend), self.local_rank)

    @property
    def is_cpu(self) -> bool:
        """Whether the CPU computes."""
        return self.backend is Backend.CPU

    def name(self) -> str:
        """The name that the driver, or the operating system for a CPU, gives this device."""
        if self.backend in (Backend.CUDA, Backend.ROCM):
            return torch.cuda.get_device_name(self.local_rank)
        if self.backend is Backend.XPU:
            return str(torch.xpu.get_device_name(self.local_rank))
        return cpu_name() if self.is_cpu else f"Apple {self.backend.value}"

    def free_memory_bytes(self, n_local_ranks: int) -> int:
        """Bytes that this rank may fill: of its accelerator, or its share of the machine."""
        if self.backend in (Backend.CUDA, Backend.ROCM):
            return int(torch.cuda.mem_get_info(self.local_rank)[0])
        if self.backend is Backend.XPU:
            return int(torch.xpu.mem_get_info(self.local_rank)[0])
        return psutil.virtual_memory().available // n_local_ranks

    def synchronize(self) -> None:
        """Nothing, after all work queued on the device is done."""
        if not self.is_cpu:
            torch.accelerator.synchronize()

    def peak_memory_bytes(self) -> tuple[int | None, int]:
        """Peak allocated bytes (None where torch does not count them) and peak reserved bytes (of a CPU rank: resident set)."""
        if self.backend in (Backend.CUDA, Backend.ROCM, Backend.XPU):
            counts = torch.cuda if self.backend is not Backend.XPU else torch.xpu
            return int(counts.max_memory_allocated()), int(counts.max_memory_reserved())
        if self.backend is Backend.MPS:
            return int(torch.mps.current_allocated_memory()), int(torch.mps.driver_allocated_memory())
        unit = 1 if sys.platform == "darwin" else 1024
        return None, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def cpu_name() -> str:
    """The processor's name with what matters for matrix products."""
    features = [
        label
        for label, has in (
            ("AVX-512", torch.cpu._is_avx512_supported()),
            ("AVX512-BF16", torch.cpu._is_avx512_bf16_supported()),
            ("AMX", torch.cpu._is_amx_tile_supported()),
        )
        if has
    ]
    return " ".join([_cpu_model(), *(f"({', '.join(features)})" for _ in features[:1])])


def _cpu_model() -> str:
    try:
        with Path("/proc/cpuinfo").open() as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "CPU"


LEAST_FLOAT8_CAPABILITY = (8, 9)  # Ada and Hopper; earlier NVIDIA devices have no float8 matrix units


def has_float8(device: LocalDevice) -> bool:
    """Whether this device has float8 matrix units that torch uses."""
    return device.backend is Backend.CUDA and torch.cuda.get_device_capability(device.local_rank) >= LEAST_FLOAT8_CAPABILITY


def has_fast_bf16(backend: Backend) -> bool:
    """Whether bf16 products may be faster than fp32 here: by instruction set on a CPU, by the driver's word elsewhere."""
    if backend is Backend.CPU:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    if backend in (Backend.CUDA, Backend.ROCM):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return True
