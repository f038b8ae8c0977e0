"""A measured run: warm-up, timed windows, then what explains them."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.profiler import ProfilerActivity, profile

from bench import stats
from bench.errors import Preempted
from bench.facts.breakdown import StepBreakdown
from bench.facts.measurement import Estimate, LateStep, MeasureEnd, Measurement, RankSamples, Spread
from bench.facts.meter import Meter
from bench.facts.progress import Progress
from bench.facts.run import RunSpec
from bench.run.clock import StepClock
from bench.run.devices import LocalDevice
from bench.run.memory import memory_use
from bench.run.meter import metered, record_meter
from bench.run.phases import break_down
from bench.run.plant import planted
from bench.run.preempt import Guard
from bench.run.record import Record, find_faults, find_warnings, finite
from bench.run.saving import Saver, training_warnings
from bench.run.sources import find_source
from bench.run.stopping import MOST_STEPS_PER_WINDOW
from bench.run.telemetry import Sampler, totals
from bench.run.train import Trainer
from bench.run.windows import Watch, foreign_load, measure_windows, no_garbage_collection, warm_up

TRACED_STEPS = 3


Keep = Callable[[Measurement], None]


@dataclass(frozen=True)
class Extras:
    """What a run reads and leaves besides its measurement."""

    trace: Path | None = None  # where a profiler trace of this rank goes
    states: Path | None = None  # where saved states go; the newest that is there is gone on from
    meter: Meter | None = None  # waits that stand for computing
    keep_meter: Callable[[Meter], None] | None = None


def measure_steps(
    spec: RunSpec, device: LocalDevice, host: str, *, progress: Progress, guard: Guard, keep: Keep, extras: Extras
) -> Measurement:
    """A measured run, the same on every rank.

    `progress` is told in words how far it is; `keep` is given on every rank what was measured so far, now and then. Raises
    Preempted on all ranks where one was asked to stop, after `keep` has had the last.
    """
    progress(f"set-up: {spec.model.name} on {spec.world_size} x {spec.backend}")
    trainer = planted(Trainer(spec, device))
    with ExitStack() as stack:
        if extras.meter:
            stack.enter_context(metered(trainer, extras.meter))
        return _measure(spec, device, host, trainer, progress=progress, guard=guard, keep=keep, extras=extras)


def _measure(
    spec: RunSpec, device: LocalDevice, host: str, trainer: Trainer, *, progress: Progress, guard: Guard, keep: Keep, extras: Extras
) -> Measurement:
    saver = Saver(trainer, extras.states)
    if read := saver.begin():
        progress(f"set-up: goes on from the state after step {read.step}")
    begun = time.perf_counter()
    before = trainer.examine()
    record = Record(before=before, first_s=time.perf_counter() - begun, is_metered=extras.meter is not None)
    clock, sampler = StepClock(device, MOST_STEPS_PER_WINDOW), Sampler(find_source(device))

    def snapshot() -> None:
        record.after = trainer.examine()
        keep_so_far()

    def keep_so_far() -> None:
        record.training = saver.told()
        own = _rank_samples(device, host, trainer, record)
        keep(_measurement(spec, device, trainer, record, gather_object([own]), end=MeasureEnd.PREEMPTED))

    watch = Watch(sampler=sampler, guard=guard, progress=progress, snapshot=snapshot, saver=saver)
    with no_garbage_collection():
        record.warmup_end = warm_up(spec.measure, trainer, clock, guard=guard, record=record, progress=progress)
        try:
            with foreign_load(record, host):
                measure_windows(spec, trainer, clock, record, watch)
        except Preempted:
            if record.step_s:
                snapshot()
                if saver.save_at_last(guard.left_s()):
                    keep_so_far()
            raise
    snapshot()  # what follows may end badly
    own = _rank_samples(device, host, trainer, record)
    n_tokens = spec.tokens_per_step * len(record.step_s)
    record.telemetry = totals(gather_object([sampler.summary(trainer.rank, host, sum(record.window_s))]), n_tokens)
    record.memory = tuple(sorted(gather_object([memory_use(trainer, device)]), key=lambda use: use.rank))
    progress("where the time goes: a few steps in phases")
    record.breakdown = break_down(spec, trainer, device, host)
    if spec.measure.trace:
        _trace(trainer, extras.trace)
    if spec.measure.record_meter:
        meter = record_meter(trainer, float(np.median(record.step_s)))
        if extras.keep_meter:
            extras.keep_meter(meter)
    return _measurement(spec, device, trainer, record, gather_object([own]), end=record.measure_end)


def _trace(trainer: Trainer, path: Path | None) -> None:
    """Nothing; every rank has taken a few more steps, and the rank with a path has written what it did in them."""
    gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    with profile(activities=[ProfilerActivity.CPU, *gpu]) as profiler:
        for _ in range(TRACED_STEPS):
            trainer.step()
    if path is not None:
        profiler.export_chrome_trace(str(path))


def _rank_samples(device: LocalDevice, host: str, trainer: Trainer, record: Record) -> RankSamples:
    allocated, reserved = device.peak_memory_bytes()
    return RankSamples(
        rank=trainer.rank,
        host=host,
        warmup_s=tuple(record.warmup_s),
        step_s=tuple(record.step_s),
        window_s=tuple(record.window_s),
        peak_allocated_bytes=allocated,
        peak_reserved_bytes=reserved,
    )


def _measurement(
    spec: RunSpec, device: LocalDevice, trainer: Trainer, record: Record, everyone: Sequence[Any], *, end: MeasureEnd | None
) -> Measurement:
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
        ranks=tuple(sorted(everyone, key=lambda samples: int(samples.rank))),
        tokens_per_s=estimate,
        step_s=stats.quantiles(record.world_step_s),
        setup_s=trainer.setup_s,
        compile_s=max(0.0, record.first_s - float(np.median(record.world_step_s))),
        loss_first=finite(record.before.loss),
        loss_last=finite(record.after.loss),
        grad_norm=finite(record.after.grad_norm),
        warnings=(*find_warnings(spec.measure, record, estimate), *training_warnings(record.training)),
        invalid=find_faults(record),
        measure_end=end,
        spread=_spread(estimate, {samples.host for samples in everyone}, record.breakdown),
        late_steps=_late_steps(record.world_step_s),
        breakdown=record.breakdown,
        memory=record.memory,
        telemetry=record.telemetry,
        training=record.training,
    )


def _spread(estimate: Estimate, hosts: set[str], breakdown: StepBreakdown | None) -> Spread:
    own_s = list(breakdown.own_s_by_host.values()) if breakdown else []
    return stats.over_launches([estimate], len(hosts), stats.between_groups_fraction(own_s))[1]


def _late_steps(step_s: Sequence[float]) -> tuple[LateStep, ...]:
    begun = np.concatenate(([0.0], np.cumsum(step_s)))
    return tuple(LateStep(step=i, at_s=float(begun[i]), step_s=step_s[i]) for i in stats.outliers(step_s))
