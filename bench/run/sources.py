"""Who tells of a device's power, energy, clocks, temperature and throttling: NVML, amdsmi, RAPL, the kernel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch

from bench.facts.hardware import Backend
from bench.run.devices import LocalDevice

try:
    import pynvml  # nvidia-ml-py, the extra `nvidia`
except ImportError:
    pynvml = None

POWERCAP = Path("/sys/class/powercap")
# Bits of nvmlClocksEventReasons that mean less speed than the device could give. Source: NVML API reference.
THROTTLE_REASONS = {0x04: "power cap", 0x08: "hardware slowdown", 0x20: "heat, by software", 0x40: "heat, by hardware", 0x80: "power brake"}


@dataclass(frozen=True)
class Reading:
    """One look at a source; None for what it does not tell."""

    power_w: float | None = None
    energy_j: float | None = None  # a counter from some beginning
    clock_hz: float | None = None
    temperature_c: float | None = None
    throttle_reasons: tuple[str, ...] | None = None
    n_foreign_processes: int | None = None


class Source(Protocol):
    """Something that tells of one device."""

    name: str
    period_s: float | None  # between looks inside a window; None where looking costs the processor that is measured

    def read(self) -> Reading:
        """What it tells now."""


class NvmlSource:
    """An NVIDIA device, through NVML. Raises pynvml.NVMLError where there is none of that name, as for a slice of one (MIG)."""

    name = "NVML"
    period_s: float | None = 0.2

    def __init__(self, local_rank: int) -> None:
        pynvml.nvmlInit()
        self._device = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(local_rank).uuid}")

    def read(self) -> Reading:
        n, device = pynvml, self._device
        reasons = _told(lambda: n.nvmlDeviceGetCurrentClocksThrottleReasons(device))
        return Reading(
            power_w=scaled(_told(lambda: n.nvmlDeviceGetPowerUsage(device)), 1e-3),
            energy_j=scaled(_told(lambda: n.nvmlDeviceGetTotalEnergyConsumption(device)), 1e-3),
            clock_hz=scaled(_told(lambda: n.nvmlDeviceGetClockInfo(device, n.NVML_CLOCK_SM)), 1e6),
            temperature_c=scaled(_told(lambda: n.nvmlDeviceGetTemperature(device, n.NVML_TEMPERATURE_GPU)), 1.0),
            throttle_reasons=None if reasons is None else tuple(text for bit, text in THROTTLE_REASONS.items() if reasons & bit),
            n_foreign_processes=_n_foreign(_told(lambda: n.nvmlDeviceGetComputeRunningProcesses(device))),
        )


def nvidia_driver() -> str | None:
    """The version of NVIDIA's driver, such as 580.159.04; None where NVML does not tell."""
    if pynvml is None:
        return None
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def _told(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except pynvml.NVMLError:
        return None


def scaled(value: float | None, factor: float) -> float | None:
    """The value in another unit; None stays None."""
    return None if value is None else value * factor


def _n_foreign(processes: Sequence[Any] | None) -> int | None:
    """Processes on the device besides this rank. Counted, not matched: in a container NVML tells the host's process ids."""
    return None if processes is None else max(0, len(processes) - 1)


class RocmSource:
    """An AMD device, through amdsmi as torch calls it."""

    name = "amdsmi"
    period_s: float | None = 0.2

    def __init__(self, local_rank: int) -> None:
        self._rank = local_rank
        self.read()

    def read(self) -> Reading:
        return Reading(
            power_w=torch.cuda.power_draw(self._rank) / 1e3,
            clock_hz=torch.cuda.clock_rate(self._rank) * 1e6,
            temperature_c=float(torch.cuda.temperature(self._rank)),
        )


class ProcessorSource:
    """The processors of this machine: energy through RAPL where it may be read, and the clock where the kernel tells it."""

    name = "RAPL, cpufreq"
    period_s: float | None = None

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._packages = [path for path in sorted(powercap.glob("intel-rapl:*")) if path.name.count(":") == 1 and _is_readable(path)]
        self._last_j = [self._counter_j(path) for path in self._packages]
        self._sum_j = 0.0

    def read(self) -> Reading:
        clock = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
        return Reading(energy_j=self._energy_j(), clock_hz=clock.current * 1e6 if clock and clock.current else None)

    def _energy_j(self) -> float | None:
        """The sum of all packages, each counter followed over its wrap."""
        for i, path in enumerate(self._packages):
            now = self._counter_j(path)
            wrap = _number(path / "max_energy_range_uj") / 1e6 if now < self._last_j[i] else 0.0
            self._sum_j += now - self._last_j[i] + wrap
            self._last_j[i] = now
        return self._sum_j if self._packages else None

    @staticmethod
    def _counter_j(path: Path) -> float:
        return _number(path / "energy_uj") / 1e6


def _number(path: Path) -> float:
    return float(path.read_text(encoding="ascii"))


def _is_readable(path: Path) -> bool:
    try:
        return _number(path / "energy_uj") >= 0
    except OSError:  # only root may read it on most machines
        return False


def find_source(device: LocalDevice) -> Source | None:
    """The source for this rank; processors tell through the first rank of a machine only. None where nothing tells anything."""
    source = _opened(device)
    return source if source and source.read() != Reading() else None


def _opened(device: LocalDevice) -> Source | None:
    if device.backend is Backend.CUDA and pynvml:
        try:
            return NvmlSource(device.local_rank)
        except pynvml.NVMLError:
            return None
    if device.backend is Backend.ROCM:
        try:
            return RocmSource(device.local_rank)
        except (RuntimeError, ModuleNotFoundError):
            return None
    return ProcessorSource() if device.is_cpu and device.local_rank == 0 else None
