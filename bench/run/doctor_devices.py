"""Checks of accelerators: whether torch sees what the machine has, their clocks, and who else uses them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from bench.facts.diagnosis import Finding, fail, ok, warn
from bench.facts.hardware import Backend
from bench.run.devices import LocalDevice, find_backend, find_world_size
from bench.run.sources import Reading, find_source

try:
    import pynvml  # nvidia-ml-py, the extra `nvidia`
except ImportError:
    pynvml = None

NEEDS_PYNVML = "pip install -e .[nvidia]: power, clocks and throttling of NVIDIA devices are not told without it"


def devices(backend: Backend, names: Sequence[str], root: Path = Path("/")) -> Finding:
    """What a run would use, and whether it leaves out an accelerator that the kernel knows."""
    unused = _unused(backend, root)
    if unused:
        return fail(
            "devices", f"{unused} is here, and torch {torch.__version__} does not use it", "install the build of torch for it (pytorch.org)"
        )
    kinds = {name: names.count(name) for name in names}
    told = ", ".join(f"{n} x {name}" for name, n in kinds.items())
    if len(kinds) > 1:
        return warn("devices", told, "use alike devices (CUDA_VISIBLE_DEVICES): the slowest sets the pace")
    return ok("devices", f"{told} ({backend.value})" + (", no accelerator" if backend is Backend.CPU else ""))


def _unused(backend: Backend, root: Path) -> str:
    if backend is not Backend.CUDA and (root / "proc/driver/nvidia/version").exists() and any((root / "dev").glob("nvidia[0-9]*")):
        return "an NVIDIA device"
    return "an AMD device" if backend is not Backend.ROCM and backend is not Backend.CUDA and (root / "dev/kfd").exists() else ""


def driver(root: Path = Path("/")) -> Finding | None:
    """The NVIDIA driver of this machine; None where there is none."""
    file = root / "proc/driver/nvidia/version"
    if not file.exists():
        return None
    first = (file.read_text(encoding="utf-8").splitlines() or ["empty"])[0]
    return ok("driver", first.removeprefix("NVRM version: ").strip() or "not told")


def telemetry(backend: Backend, has_pynvml: bool | None = None) -> Finding | None:
    """Whether power and clocks of the devices can be read."""
    known = pynvml is not None if has_pynvml is None else has_pynvml
    return warn("telemetry", "NVML is not here", NEEDS_PYNVML) if backend is Backend.CUDA and not known else None


def readings(backend: Backend, n_devices: int) -> list[Reading | None]:
    """A look at every device; None where nothing tells."""
    if backend is Backend.CPU:
        return []
    sources = [find_source(LocalDevice(backend, rank)) for rank in range(n_devices)]
    return [source.read() if source else None for source in sources]


def states(seen: Sequence[Reading | None]) -> Iterator[Finding]:
    """Clock, heat, throttling and other programs of every device that tells."""
    for rank, reading in enumerate(seen):
        if reading is None:
            continue
        clock = f"{reading.clock_hz / 1e9:.2f} GHz" if reading.clock_hz else "clock not told"
        heat = f"{reading.temperature_c:.0f} C" if reading.temperature_c is not None else "temperature not told"
        told = f"{clock}, {heat}"
        if reading.throttle_reasons:
            reasons = ", ".join(reading.throttle_reasons)
            yield warn(f"device {rank}", f"{told}, held back by {reasons}", "cool it, raise its power limit, or wait until it has cooled")
        else:
            yield ok(f"device {rank}", told)
        if reading.n_foreign_processes:
            yield warn(f"other programs, device {rank}", f"{reading.n_foreign_processes} more", "end them (nvidia-smi lists them)")


def here() -> tuple[Backend, int, list[str]]:
    """What a run with device=auto would use: backend, number and names of devices."""
    backend = find_backend(None)
    n = find_world_size(backend, None)
    if backend is Backend.CPU:
        return backend, n, [LocalDevice(backend, 0).name()]
    return backend, n, [LocalDevice(backend, rank).name() for rank in range(n)]


def driver_cuda() -> str | None:
    """The newest CUDA version that the driver knows; None without NVML."""
    if pynvml is None:
        return None
    try:
        pynvml.nvmlInit()
        version = int(pynvml.nvmlSystemGetCudaDriverVersion())
    except pynvml.NVMLError:
        return None
    return f"{version // 1000}.{version % 1000 // 10}"
