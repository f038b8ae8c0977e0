"""What one device does alone: matrix products, attention, memory, launches, optimizer; each timed until its median is known."""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from statistics import median

import torch

from bench.facts.hardware import Backend, Precision
from bench.facts.profile import Absent, Cache, Load, ProbePolicy, ProbeSamples, WorkUnit
from bench.facts.progress import Progress, TimeLeft, extrapolated
from bench.facts.units import KIB
from bench.run.devices import LocalDevice, has_fast_bf16, has_float8
from bench.run.probe_cases import Call, Case, PlanWork, all_cases
from bench.run.repeat import UNTIMED_CALLS, repeat_calls
from bench.run.sources import Source, find_source
from bench.run.telemetry import Sampler

# sysconf adds up the caches of sockets that a virtual machine does not have
LINUX_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
USUAL_CACHE_BYTES = 64 * 2**20  # where the machine does not tell
CACHES_BEYOND = 4  # an array of so many caches leaves nothing behind in them
MOST_BUDGETS = 4  # that a slow product of a plan may take for its few samples; slower ones are left out
USABLE_FRACTION = 0.5  # of the free memory, for the operands of one probe
# Power counts from here on: NVML tells the mean of the last second. Source: NVML API reference, nvmlDeviceGetPowerUsage.
SETTLING_S = 1.0
BUSY_CALLS = 8  # queued before one waits for the device


@dataclass
class Prober:
    """Times cases on one device; slow and large ones are left out and said to be."""

    policy: ProbePolicy
    device: LocalDevice
    free_bytes: int
    cache_bytes: int
    done: list[ProbeSamples] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)

    def run(self, case: Case) -> None:
        """Nothing; the case is among `done`, or among `absent` with the reason."""
        if reason := self._why_not(case):
            self.absent.append(Absent(what=str(case), reason=reason))
            return
        timing = repeat_calls(self.policy.repeat, self.device, case.make(), self._flush if case.cold else None)
        sample = ProbeSamples(
            kind=case.kind,
            name=case.name,
            sizes=case.sizes,
            precision=case.precision,
            cache=self._cache(case),
            work=case.work,
            work_unit=case.unit,
            timing=timing,
            rate_per_s=case.work / timing.median_s,
            rate_low_per_s=case.work / timing.high_s,
            rate_high_per_s=case.work / timing.low_s,
        )
        self.done.append(sample)

    def _why_not(self, case: Case) -> str | None:
        if case.operand_bytes > USABLE_FRACTION * self.free_bytes:
            return f"operands of {case.operand_bytes / 2**30:.1f} GiB; {self.free_bytes / 2**30:.1f} GiB are free"
        alike = [p.rate_per_s for p in self.done if p.work_unit is case.unit is WorkUnit.FLOPS and p.precision is case.precision]
        if not alike or not case.name:
            return None
        least_s = (UNTIMED_CALLS + self.policy.repeat.min_samples) * case.work / median(alike)
        limit_s = MOST_BUDGETS * self.policy.repeat.budget_s
        return f"it would take {least_s:.1f} s, above {limit_s:g} s, {MOST_BUDGETS} x probe.repeat.budget_s" if least_s > limit_s else None

    def _cache(self, case: Case) -> Cache:
        if case.cold:
            return Cache.COLD
        return Cache.BEYOND if case.operand_bytes >= CACHES_BEYOND * self.cache_bytes else Cache.WARM

    @cached_property
    def _flush(self) -> Callable[[], object]:
        """A call that leaves nothing of a case in the cache."""
        return partial(torch.zeros(self.cache_bytes * 2, dtype=torch.uint8, device=self.device.torch_device).add_, 1)


def probe_device(
    policy: ProbePolicy, device: LocalDevice, plans: Sequence[PlanWork], precisions: Sequence[Precision], tell: Progress
) -> tuple[tuple[ProbeSamples, ...], tuple[Absent, ...], tuple[Load, ...]]:
    """Every probe of the policy, and of the products and the attention of every plan; what was left out; and what the device drew."""
    prober = Prober(policy, device, device.free_memory_bytes(1), last_level_cache_bytes(device))
    cases, begun = all_cases(policy, device, plans, precisions), time.perf_counter()
    for i, case in enumerate(cases):
        tell(f"{case.kind}: {i + 1} of {len(cases)}, {case}", extrapolated(time.perf_counter() - begun, i, len(cases)))
        prober.run(case)
    source = find_source(device) if policy.load_s else None
    return tuple(prober.done), tuple(prober.absent), loads(policy, device, source, _heaviest(cases, prober), tell) if source else ()


def _heaviest(cases: Sequence[Case], prober: Prober) -> list[Case]:
    """Of everything that was timed, the case of every kind and precision with the most work."""
    left_out = {absent.what for absent in prober.absent}
    by_kind: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        if str(case) not in left_out and not case.cold:
            by_kind.setdefault((case.kind, case.precision), []).append(case)
    return [max(alike, key=lambda case: case.work) for alike in by_kind.values()]


def loads(policy: ProbePolicy, device: LocalDevice, source: Source, cases: Sequence[Case], tell: Progress) -> tuple[Load, ...]:
    """What the source tells while each case runs again and again for `policy.load_s` seconds, the first second not counted."""
    told = []
    for case in cases:
        tell(f"power and clocks: {case}", TimeLeft(most_s=SETTLING_S + policy.load_s))
        call, sampler = case.make(), Sampler(source)
        _keep_busy(device, call, SETTLING_S)
        with sampler.window():
            busy_s, n_calls = _keep_busy(device, call, policy.load_s)
        if telemetry := sampler.summary(0, platform.node(), busy_s):
            told.append(Load(what=str(case), telemetry=telemetry, rate_per_s=case.work * n_calls / busy_s, work_unit=case.unit))
    return tuple(told)


def _keep_busy(device: LocalDevice, call: Call, seconds: float) -> tuple[float, int]:
    """Seconds that the device was busy with this call, at least as many as asked for, and how many calls it made."""
    begun, n_calls = time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < seconds:
        for _ in range(BUSY_CALLS):
            call()
        device.synchronize()
        n_calls += BUSY_CALLS
    return passed, n_calls


def probe_precisions(device: LocalDevice, asked: Precision | None) -> tuple[Precision, ...]:
    """The precision asked for, or every one whose products may be fast here, then fp32."""
    if asked:
        return (asked,)
    fast = ((Precision.BF16, has_fast_bf16(device.backend)), (Precision.FP8, has_float8(device)))
    return (*(precision for precision, is_fast in fast if is_fast), Precision.FP32)


def last_level_cache_bytes(device: LocalDevice) -> int:
    """Bytes of the cache that the device's cores share; of one group of cores where a CPU has several."""
    if device.backend in (Backend.CUDA, Backend.ROCM):
        return int(torch.cuda.get_device_properties(device.local_rank).L2_cache_size)
    try:
        told = LINUX_CACHE.read_text(encoding="ascii").strip()
    except OSError:
        told = ""
    return int(told[:-1]) * KIB if device.is_cpu and told.endswith("K") else USUAL_CACHE_BYTES
