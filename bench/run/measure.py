"""Warm-up until the step is steady, windows until the interval is narrow enough, and what was seen."""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
from accelerate.utils import broadcast_object_list, gather_object

from bench import stats
from bench.facts.measurement import Estimate, Measurement, RankSamples, WarmupEnd
from bench.facts.run import RunSpec
from bench.run.clock import StepClock
from bench.run.devices import LocalDevice
from bench.run.record import Record, find_faults, find_warnings
from bench.run.train import Trainer

WINDOW_S = 2.0  # between two looks at the interval
MOST_STEPS_PER_WINDOW = 1000
Progress = Callable[[str], None]


def measure_steps(spec: RunSpec, device: LocalDevice, host: str, progress: Progress) -> Measurement:
    """A measured run, the same on every rank. `progress` is told in words how far it is."""
    progress(f"set-up: {spec.model.name} on {spec.world_size} x {spec.backend}")
    trainer = Trainer(spec, device)
    record = Record(before=trainer.examine())
    clock = StepClock(device, MOST_STEPS_PER_WINDOW)
    with _no_garbage_collection():
        record.warmup_end = _warm_up(spec, trainer, clock, record, progress)
        with _foreign_load(record):
            _measure(spec, trainer, clock, record, progress)
    record.after = trainer.examine()
    return _measurement(spec, device, host, trainer, record)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
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
def _foreign_load(record: Record) -> Iterator[None]:
    """Share of this machine's cores that others kept busy in the meantime goes into the record."""
    begun, own, all_before = time.perf_counter(), time.process_time(), _busy_core_s()
    yield
    ours = sum(gather_object([time.process_time() - own]))
    capacity = (time.perf_counter() - begun) * (psutil.cpu_count() or 1)
    record.foreign_load = max(0.0, (_busy_core_s() - all_before - ours) / capacity)


def _busy_core_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _run_window(trainer: Trainer, clock: StepClock, n_steps: int) -> tuple[list[float], float]:
    gc.collect()
    gather_object([trainer.rank])  # all ranks begin together
    clock.start()
    for _ in range(n_steps):
        trainer.step()
        clock.mark()
    return clock.stop()


def _warm_up(spec: RunSpec, trainer: Trainer, clock: StepClock, record: Record, progress: Progress) -> WarmupEnd:
    """What ended the warm-up: two stretches alike, or the cap. Exactly one of them."""
    policy = spec.measure
    stretch = max(2, policy.warmup_min_steps // 2)
    while len(record.warmup_s) < policy.warmup_max_steps:
        n_steps = min(stretch, policy.warmup_max_steps - len(record.warmup_s))
        step_s, _ = _run_window(trainer, clock, n_steps)
        record.warmup_s += step_s
        progress(f"warm-up: {len(record.warmup_s)} steps, {step_s[-1] * 1e3:.1f} ms each")
        # the first step compiles and allocates; it never counts as steady
        seen = record.warmup_s[1:]
        enough = len(record.warmup_s) >= policy.warmup_min_steps
        if _agreed(enough and stats.is_steady(seen, stretch, policy.warmup_tolerance)):
            return WarmupEnd.STEADY
    return WarmupEnd.CAP


def _agreed(verdict: bool) -> bool:
    """Rank 0's verdict, on every rank."""
    return bool(broadcast_object_list([verdict])[0])


def _measure(spec: RunSpec, trainer: Trainer, clock: StepClock, record: Record, progress: Progress) -> None:
    policy = spec.measure
    n_steps = _window_steps(spec, float(np.median(record.warmup_s[1:] or record.warmup_s)))
    while True:
        step_s, window_s = _run_window(trainer, clock, n_steps)
        everyone: list[Any] = gather_object([(step_s, window_s)])
        record.step_s += step_s
        record.window_s.append(window_s)
        record.steps_per_window.append(n_steps)
        record.world_step_s += _world_steps(everyone)
        done = len(record.world_step_s)
        estimate = stats.throughput(record.world_step_s, spec.tokens_per_step, policy.confidence)
        progress(_progress_text(estimate, policy.budget_s - sum(record.window_s)))
        if policy.steps is not None:
            n_steps = min(n_steps, policy.steps - done)
            if n_steps == 0:
                return
        elif _agreed(_is_enough(spec, estimate, sum(record.window_s))):
            return


def _world_steps(everyone: Sequence[tuple[list[float], float]]) -> list[float]:
    """Step times of the world: means over ranks, scaled so that they add up to the longest window."""
    means = np.mean([step_s for step_s, _ in everyone], axis=0)
    longest = max(window_s for _, window_s in everyone)
    return [float(s) for s in means * (longest / means.sum())]


def _window_steps(spec: RunSpec, step_s: float) -> int:
    """Steps between two looks; the same on every rank."""
    by_time = max(2, min(MOST_STEPS_PER_WINDOW, math.ceil(WINDOW_S / step_s)))
    at_most = spec.measure.steps or by_time
    return int(broadcast_object_list([min(by_time, at_most)])[0])


def _is_enough(spec: RunSpec, estimate: Estimate, elapsed_s: float) -> bool:
    policy = spec.measure
    if estimate.n_steps < policy.min_steps:
        return False
    return estimate.half_width_fraction <= policy.target_ci or elapsed_s >= policy.budget_s


def _progress_text(estimate: Estimate, left_s: float) -> str:
    width = 100 * estimate.half_width_fraction
    return f"measuring: {estimate.n_steps} steps, {estimate.value:,.0f} tokens/s +-{width:.1f} %, at most {max(left_s, 0):.0f} s left"


def _measurement(spec: RunSpec, device: LocalDevice, host: str, trainer: Trainer, record: Record) -> Measurement:
    allocated, reserved = device.peak_memory_bytes()
    own = RankSamples(
        rank=trainer.rank,
        host=host,
        warmup_s=tuple(record.warmup_s),
        step_s=tuple(record.step_s),
        window_s=tuple(record.window_s),
        peak_allocated_bytes=allocated,
        peak_reserved_bytes=reserved,
    )
    estimate = stats.throughput(record.world_step_s, spec.tokens_per_step, spec.measure.confidence)
    return Measurement(
        backend=spec.backend,
        device_name=device.name(),
        world_size=spec.world_size,
        threads_per_rank=spec.threads_per_rank,
        precision=spec.train.precision,
        compiled=spec.train.compiled,
        model=spec.model,
        plan=spec.plan,
        batch=spec.batch,
        tokens_per_step=spec.tokens_per_step,
        n_parameters=trainer.n_parameters,
        warmup_end=record.warmup_end,
        steps_per_window=tuple(record.steps_per_window),
        ranks=tuple(sorted(gather_object([own]), key=lambda samples: samples.rank)),
        tokens_per_s=estimate,
        step_s=stats.quantiles(record.world_step_s),
        setup_s=trainer.setup_s,
        compile_s=max(0.0, record.warmup_s[0] - float(np.median(record.world_step_s))),
        loss_first=record.before.loss,
        loss_last=record.after.loss,
        grad_norm=record.after.grad_norm,
        warnings=find_warnings(spec.measure, record, estimate),
        invalid=find_faults(record),
    )
