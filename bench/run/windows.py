"""Steps in windows between synchronised edges: until they are steady, then until the rule says enough."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from accelerate.utils import broadcast_object_list, gather_object

from bench import stats
from bench.facts.measurement import WarmupEnd
from bench.facts.progress import Progress
from bench.facts.run import MeasurePolicy, RunSpec
from bench.run.clock import StepClock
from bench.run.preempt import Guard
from bench.run.record import Record
from bench.run.saving import Saver
from bench.run.stopping import StoppingRule
from bench.run.telemetry import Sampler
from bench.run.train import Trainer

SNAPSHOT_S = 5.0  # timed seconds after which what was measured is kept once more: so much is lost at most
SNAPSHOT_STEPS = 20  # and steps, since a snapshot takes an untimed one


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collections happen between windows only, on every rank at the same step."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextmanager
def foreign_load(record: Record, host: str) -> Iterator[None]:
    """The largest share of a machine's cores that others kept busy in the meantime goes into the record, with the machine."""
    begun, own, all_before = time.perf_counter(), time.process_time(), _busy_core_s()
    yield
    busy, capacity = _busy_core_s() - all_before, (time.perf_counter() - begun) * (psutil.cpu_count() or 1)
    everyone: list[Any] = gather_object([(host, time.process_time() - own, busy, capacity)])
    record.foreign_load, record.foreign_host = max(_foreign_share(everyone, name) for name in {name for name, *_ in everyone})


def _foreign_share(everyone: Sequence[tuple[str, float, float, float]], host: str) -> tuple[float, str]:
    here = [row for row in everyone if row[0] == host]
    _, _, busy, capacity = here[0]
    return max(0.0, (busy - sum(own for _, own, _, _ in here)) / capacity), host


def _busy_core_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def run_window(trainer: Trainer, clock: StepClock, n_steps: int, guard: Guard) -> tuple[list[float], float]:
    """Seconds of every step, and of the window, on this rank. Raises Preempted on all ranks where one was asked to stop."""
    gc.collect()
    guard.stop_together()  # all ranks begin together
    clock.start()
    for _ in range(n_steps):
        trainer.step()
        clock.mark()
    return clock.stop()


def warm_up(policy: MeasurePolicy, trainer: Trainer, clock: StepClock, *, guard: Guard, record: Record, progress: Progress) -> WarmupEnd:
    """What ended the warm-up: two stretches alike, or the cap. Exactly one of them."""
    stretch = max(2, policy.warmup_min_steps // 2)
    while len(record.warmup_s) < policy.warmup_max_steps:
        n_steps = min(stretch, policy.warmup_max_steps - len(record.warmup_s))
        step_s, _ = run_window(trainer, clock, n_steps, guard)
        record.warmup_s += step_s
        progress(f"warm-up: {len(record.warmup_s)} steps, {step_s[-1] * 1e3:.1f} ms each")
        # the first of them may still allocate; it never counts as steady
        seen = record.warmup_s[1:]
        enough = len(record.warmup_s) >= policy.warmup_min_steps
        if agreed(enough and stats.is_steady(seen, stretch, policy.warmup_tolerance)):
            return WarmupEnd.STEADY
    return WarmupEnd.CAP


def agreed(word: Any) -> Any:
    """Rank 0's word, on every rank."""
    return broadcast_object_list([word])[0]


@dataclass(frozen=True)
class Watch:
    """What looks on while windows are measured: of power and clocks, being asked to stop, how far it is, what is kept and saved."""

    sampler: Sampler
    guard: Guard
    progress: Progress
    snapshot: Callable[[], None]  # collective
    saver: Saver


def measure_windows(spec: RunSpec, trainer: Trainer, clock: StepClock, record: Record, watch: Watch) -> None:
    """Nothing; the timed steps are in the record, and now and then a snapshot was taken of them."""
    typical_s = agreed(float(np.median(record.warmup_s[1:] or record.warmup_s)))
    rule = StoppingRule(spec.measure, spec.tokens_per_step, typical_s)
    kept_s = 0.0
    while n_steps := agreed(rule.next_window(record.world_step_s)):
        if sum(record.world_step_s) - kept_s >= max(SNAPSHOT_S, SNAPSHOT_STEPS * typical_s):
            watch.snapshot()
            kept_s = sum(record.world_step_s)
        n_steps = watch.saver.cut(n_steps)
        with watch.sampler.window():
            step_s, window_s = run_window(trainer, clock, n_steps, watch.guard)
        record.step_s += step_s
        record.window_s.append(window_s)
        record.steps_per_window.append(n_steps)
        record.world_step_s += _world_steps(gather_object([(step_s, window_s)]))
        watch.guard.has_measured = True
        if trainer.rank == 0:
            watch.progress(_progress_text(spec, record), rule.time_left(record.world_step_s))
        watch.saver.save_if_due()
    record.measure_end = agreed(rule.end)


def _world_steps(everyone: Sequence[tuple[list[float], float]]) -> list[float]:
    """Step times of the world: means over ranks, scaled so that they add up to the longest window."""
    means = np.mean([step_s for step_s, _ in everyone], axis=0)
    longest = max(window_s for _, window_s in everyone)
    return [float(s) for s in means * (longest / means.sum())]


def _progress_text(spec: RunSpec, record: Record) -> str:
    estimate = stats.throughput(record.world_step_s, spec.tokens_per_step, spec.measure.confidence)
    return f"measuring: {estimate.n_steps} steps, {estimate.value:,.0f} tokens/s +-{100 * estimate.half_width_fraction:.1f} %"
