"""Checks of the machine below the devices: memory, disk, limits, processors, and who else is at work.

Every check takes what it reads from below `root`, or its readings, so that a test can hold a made-up machine before it.
"""

import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from bench.facts.diagnosis import Finding, fail, ok, warn
from bench.facts.units import GIB, MIB
from bench.run.devices import n_cores

LEAST_SHARED_BYTES = 1 * GIB  # NCCL's shared buffers and the queues of data loaders want more than a container's usual 64 MiB
LEAST_OPEN_FILES = 4096
LEAST_STACK_BYTES = 8 * MIB
LEAST_FREE_BYTES = 2 * GIB
LEAST_DISK_BYTES = 1 * GIB
BUSY_FRACTION = 0.1  # of one core
WATCHED_S = 0.2
UNLIMITED = resource.RLIM_INFINITY


def shared_memory(root: Path = Path("/"), size_bytes: int | None = None) -> Finding:
    """Whether ranks on this machine have room to exchange data."""
    folder = root / "dev" / "shm"
    if size_bytes is None:
        if not folder.is_dir():
            return warn("shared memory", "/dev/shm is not there", "mount a tmpfs on /dev/shm; ranks of one machine exchange data there")
        state = os.statvfs(folder)
        size_bytes = state.f_blocks * state.f_frsize
    told = f"/dev/shm of {size_bytes / GIB:.2f} GiB"
    if size_bytes < LEAST_SHARED_BYTES:
        return warn("shared memory", told, "give the container more: docker run --shm-size=8g, or an emptyDir of medium Memory")
    return ok("shared memory", told)


def limits(has_infiniband: bool, soft: dict[str, int] | None = None) -> Iterator[Finding]:
    """Whether the limits of this process are wide enough; locked memory matters where InfiniBand registers buffers."""
    soft = soft or {
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "memlock": resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
        "stack": resource.getrlimit(resource.RLIMIT_STACK)[0],
    }
    yield _limit("open files (ulimit -n)", soft["nofile"], LEAST_OPEN_FILES, "ulimit -n 65536, or nofile in /etc/security/limits.conf")
    memlock = soft["memlock"]
    if has_infiniband and memlock != UNLIMITED:
        yield fail(
            "locked memory (ulimit -l)", _shown_limit(memlock), "ulimit -l unlimited, or docker run --ulimit memlock=-1; RDMA needs it"
        )
    else:
        yield ok("locked memory (ulimit -l)", _shown_limit(memlock))
    yield _limit("stack (ulimit -s)", soft["stack"], LEAST_STACK_BYTES, "ulimit -s 8192")


def _limit(check: str, value: int, least: int, fix: str) -> Finding:
    if value != UNLIMITED and value < least:
        return warn(check, f"{_shown_limit(value)}, below {least}", fix)
    return ok(check, _shown_limit(value))


def _shown_limit(value: int) -> str:
    return "unlimited" if value == UNLIMITED else f"{value}"


def memory(available_bytes: int | None = None) -> Finding:
    """Whether there is memory for a run."""
    free = psutil.virtual_memory().available if available_bytes is None else available_bytes
    told = f"{free / GIB:.1f} GiB available"
    if free < LEAST_FREE_BYTES / 4:
        return fail("memory", told, "end other programs: the smallest run of two ranks takes more than half a GiB")
    return ok("memory", told) if free >= LEAST_FREE_BYTES else warn("memory", told, "end other programs, or use model=tiny")


def disk(folder: Path, free_bytes: int | None = None) -> Finding:
    """Whether results can be written where a run would put them."""
    free = psutil.disk_usage(str(folder)).free if free_bytes is None else free_bytes
    told = f"{free / GIB:.1f} GiB free in {folder}"
    if free < LEAST_DISK_BYTES / 10:
        return fail("disk", told, "make room, or give out= on another disk")
    return ok("disk", told) if free >= LEAST_DISK_BYTES else warn("disk", told, "make room, or give out= on another disk")


def governor(root: Path = Path("/")) -> Finding:
    """Whether the processors' clocks are left to follow the load."""
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    kinds = sorted({file.read_text(encoding="ascii").strip() for file in files})
    if not kinds:
        return ok("clock governor", "the kernel does not tell (a virtual machine has none)")
    told = f"{', '.join(kinds)} on {len(files)} processors"
    return ok("clock governor", told) if kinds == ["performance"] else warn("clock governor", told, "cpupower frequency-set -g performance")


def cores(root: Path = Path("/"), n: int | None = None) -> Finding:
    """Whether the container may use the processors that it sees."""
    n = n_cores() if n is None else n
    file = root / "sys/fs/cgroup/cpu.max"
    quota, period = file.read_text(encoding="ascii").split() if file.exists() else ("max", "1")
    if quota != "max" and int(quota) / int(period) < n:
        allowed = int(quota) / int(period)
        return warn("processors", f"{n}, of which the control group pays for {allowed:g}", "raise the CPU limit, or pin to whole cores")
    return ok("processors", f"{n} cores")


def power_supply(root: Path = Path("/")) -> Finding | None:
    """Whether a laptop runs on its battery; None where there is none."""
    mains = [file.read_text(encoding="ascii").strip() for file in sorted((root / "sys/class/power_supply").glob("*/online"))]
    if not mains:
        return None
    return (
        ok("power supply", "plugged in") if "1" in mains else warn("power supply", "on battery", "plug it in: clocks are lower on battery")
    )


def busy_processes(readings: Sequence[tuple[str, int, float]] | None = None) -> Finding:
    """Whether others are at work on the processors: (name, process, cores in use)."""
    busy = [r for r in (_watched() if readings is None else readings) if r[2] >= BUSY_FRACTION]
    if not busy:
        return ok("other programs, CPU", f"none that uses {BUSY_FRACTION:.0%} of a core")
    most = sorted(busy, key=lambda r: -r[2])[:3]
    told = f"{len(busy)} at work: " + ", ".join(f"{name} ({pid}) {share:.0%} of a core" for name, pid, share in most)
    return warn("other programs, CPU", told, "measure when they have ended: they are in every number")


def _watched() -> list[tuple[str, int, float]]:
    """Programs besides this one and its parents, and the cores that each kept busy for a moment."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    others = [p for p in psutil.process_iter(["name"]) if p.pid not in own]
    for process in others:
        _share(process)
    psutil.cpu_percent(WATCHED_S)
    return [(str(p.info["name"]), p.pid, _share(p)) for p in others]


def _share(process: psutil.Process) -> float:
    try:
        return process.cpu_percent() / 100
    except psutil.Error:
        return 0.0
