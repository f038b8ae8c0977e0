"""Repeats until a median is known well enough, or its time is spent."""

import math
from collections.abc import Callable, Sequence

from bench import stats
from bench.facts.profile import RepeatPolicy, Timing
from bench.run.clock import StepClock
from bench.run.devices import LocalDevice

Call = Callable[[], object]
MOST_SAMPLES = 256
UNTIMED_CALLS = 2  # the first ones allocate, choose kernels and fault pages in
LEAST_SAMPLE_S = 200e-6  # shorter calls are timed several in a row: a clock reading costs about 0.1 us, a device event a few


def repeat(policy: RepeatPolicy, window: Callable[[int], Sequence[float]], calls_per_sample: int = 1) -> Timing:
    """The timing of one call. `window(n)` returns n samples in seconds, each of `calls_per_sample` calls; ranks that are given equal
    samples stop alike."""
    samples = list(window(policy.min_samples))
    while (n := _samples_wanted(policy, samples)) > 0:
        samples += window(n)
    return summarise(policy, [s / calls_per_sample for s in samples], calls_per_sample)


def summarise(policy: RepeatPolicy, samples_s: Sequence[float], calls_per_sample: int = 1) -> Timing:
    """The timing of samples that are of one call each."""
    low, median, high = stats.median_interval(samples_s, policy.confidence)
    return Timing(
        samples_s=tuple(samples_s), calls_per_sample=calls_per_sample, median_s=median, low_s=low, high_s=high, confidence=policy.confidence
    )


def _samples_wanted(policy: RepeatPolicy, samples: Sequence[float]) -> int:
    """Samples of the next window: as many as there are, what the budget still holds, or none."""
    low, median, high = stats.median_interval(samples, policy.confidence)
    if high - low <= 2 * policy.target_ci * median:
        return 0
    affordable = int((policy.budget_s - sum(samples)) / max(median, 1e-9))
    return max(0, min(len(samples), MOST_SAMPLES - len(samples), affordable))


def repeat_calls(policy: RepeatPolicy, device: LocalDevice, call: Call, before: Call | None = None) -> Timing:
    """The timing of `call` on this device alone; `before`, untimed, precedes every single call."""
    clock = StepClock(device, 2 * MOST_SAMPLES)
    for _ in range(UNTIMED_CALLS):
        call()
    calls = 1 if before else _calls_per_sample(clock, call)
    if before:
        return repeat(policy, lambda n: _alternating(clock, call, before, n))
    return repeat(policy, lambda n: _in_a_row(clock, call, calls, n), calls)


def _calls_per_sample(clock: StepClock, call: Call) -> int:
    return max(1, math.ceil(LEAST_SAMPLE_S / max(_in_a_row(clock, call, 1, 3)[-1], 1e-7)))


def _in_a_row(clock: StepClock, call: Call, calls: int, n_samples: int) -> list[float]:
    clock.start()
    for _ in range(n_samples):
        for _ in range(calls):
            call()
        clock.mark()
    return clock.stop()[0]


def _alternating(clock: StepClock, call: Call, before: Call, n_samples: int) -> list[float]:
    clock.start()
    for _ in range(n_samples):
        before()
        clock.mark()
        call()
        clock.mark()
    return clock.stop()[0][1::2]
