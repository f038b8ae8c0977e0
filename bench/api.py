"""The verbs as library calls, with typed results."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bench
from bench.config.compose import compose_plain, find_device, load
from bench.config.resolve import check_early
from bench.config.schema import Config
from bench.cost.utilization import utilization
from bench.errors import InvalidMeasurement, UsageError
from bench.facts.hardware import Device
from bench.facts.measurement import Measurement, Utilization
from bench.facts.profile import DeviceProfile, SliceMeasurement
from bench.facts.result import SCHEMA_VERSION, Measured, Result
from bench.facts.trace import StepTrace
from bench.forecast import projections
from bench.report.markdown import markdown_report
from bench.report.profile_tables import profile_report, slice_report
from bench.report.terminal import terminal_progress
from bench.report.trace_tables import trace_report
from bench.run.devices import find_backend, find_world_size, n_cores
from bench.run.launch import RankPlace, find_place, launch_ranks
from bench.run.launches import pooled
from bench.store import profiles, results
from bench.tracing import traced_plan, traced_step
from bench.worker import TASKS, measure


def run(*overrides: str) -> Result:
    """The result of the main job: measure here, project to the clusters; also written to the run directory.

    `overrides` are those of the command line, such as "model=tiny". Inside ranks that somebody else has started it is
    called on every one of them, returns the same on all, and rank 0 writes.
    Raises UsageError before anything runs, and InvalidMeasurement after the result has been written.
    """
    return run_in_turn(overrides)[0]


def run_in_turn(*configurations: Sequence[str]) -> tuple[Result, ...]:
    """The results of several configurations, as of `run`, their launches interleaved.

    What drifts on this machine (heat, neighbours) then drifts for all of them: every other round goes backwards.
    """
    jobs = [_job(overrides) for overrides in configurations]
    for turn in range(max(job.config.measure.launches for job in jobs)):
        for job in jobs if turn % 2 == 0 else reversed(jobs):
            if turn < job.config.measure.launches:
                job.launches.append(_launch(job, turn))
    kept = [_kept(job) for job in jobs]
    for result in kept:
        if result.measurement.invalid:
            reasons, where = "; ".join(result.measurement.invalid), f"; kept in {result.run_dir}" if result.run_dir else ""
            raise InvalidMeasurement(f"not a training speed: {reasons}{where}")
    return tuple(kept)


@dataclass(frozen=True)
class _Job:
    """One configuration on its way to a result."""

    plain: dict[str, Any]
    config: Config
    place: RankPlace | None  # of this rank, where somebody else has started ranks
    run_dir: Path | None  # None on all ranks but the first
    launches: list[Measured]


def _job(overrides: Sequence[str]) -> _Job:
    plain = compose_plain(overrides)
    config, place = load(plain), find_place(os.environ)
    if place and config.measure.launches > 1:
        n = config.measure.launches
        raise UsageError(f"measure.launches: {n} given; whoever started these ranks must start them {n} times; use 1")
    run_dir = None if place and place.rank > 0 else results.make_run_dir(config.out, config.name)
    return _Job(plain, config, place, run_dir, [])


def _launch(job: _Job, turn: int) -> Measured:
    """One launch; what the first found for every `auto` holds for all."""
    if job.place:
        return measure(job.config, job.place, terminal_progress() if job.place.rank == 0 else None, job.run_dir)
    assert job.run_dir is not None
    plain = job.launches[0].config if job.launches else job.plain
    launch_dir = results.make_launch_dir(job.run_dir, turn, job.config.measure.launches)
    return _measure_from_launcher(load(plain), plain, launch_dir)


def _kept(job: _Job) -> Result:
    result = _result(job.launches, job.run_dir)
    if job.run_dir:
        results.write_config(job.run_dir, result.config)
        results.write_steps(job.run_dir, result.launches or (result.measurement,))
        results.write_whole(job.run_dir / results.REPORT, markdown_report(result))
        results.write_result(job.run_dir, result)
    return result


def _measure_from_launcher(config: Config, plain: dict[str, Any], run_dir: Path) -> Measured:
    asked = config.device
    backend = find_backend(None if asked.backend == "auto" else asked.backend)
    world_size = find_world_size(backend, None if asked.n_devices == "auto" else asked.n_devices)
    check_early(config, world_size)
    threads = max(1, n_cores() // world_size) if asked.threads_per_rank == "auto" else asked.threads_per_rank
    results.write_config(run_dir, plain)
    failed = launch_ranks(["worker", str(run_dir)], world_size, threads)
    if failed:
        raise results.failure_of(run_dir, failed)
    return results.take_measured(run_dir)


def _result(launches: Sequence[Measured], run_dir: Path | None) -> Result:
    measured = launches[0]
    config = load(measured.config)
    device = find_device(measured.measurement.device_name)
    each = tuple(launch.measurement for launch in launches)
    measurement, use = _used(pooled(each, config.measure.target_ci), device)
    projected, left_out = ((), ()) if measurement.invalid else projections(config, measurement)
    return Result(
        schema_version=SCHEMA_VERSION,
        run_id=run_dir.resolve().name if run_dir else "",
        run_dir=str(run_dir or ""),
        bench_version=bench.__version__,
        config=measured.config,
        environment=measured.environment,
        survey=measured.survey,
        measurement=measurement,
        utilization=use,
        projections=projected,
        not_projected=left_out,
        warnings=measurement.warnings,
        launches=each if len(each) > 1 else (),
    )


def _used(measurement: Measurement, device: Device | None) -> tuple[Measurement, Utilization]:
    """The measurement and its use of the peak; a use above 100 % makes it invalid."""
    try:
        return measurement, utilization(measurement, device)
    except InvalidMeasurement as error:
        return replace(measurement, invalid=(*measurement.invalid, str(error))), utilization(measurement, None)


def probe(*overrides: str) -> tuple[DeviceProfile, Path] | None:
    """The profile of this machine's devices and the run directory that keeps it; None on all ranks but the first.

    Raises UsageError before anything runs.
    """
    if not (run_dir := _in_ranks("probe", overrides)):
        return None
    profile = profiles.read_profile(run_dir)
    results.write_whole(run_dir / results.REPORT, profile_report(profile))
    return profile, run_dir


def slice_target(*overrides: str) -> tuple[SliceMeasurement, Path] | None:
    """One device's share of a layer of the target, timed here, and the run directory; None on all ranks but the first.

    Raises UsageError before anything runs, and DoesNotFit before anything is allocated.
    """
    if not (run_dir := _in_ranks("slice", overrides)):
        return None
    measured = profiles.read_slice(run_dir)
    results.write_whole(run_dir / results.REPORT, slice_report(measured))
    return measured, run_dir


def trace(*overrides: str) -> tuple[StepTrace, Path]:
    """What one rank of the target sends and multiplies in a step on so many devices, and the run directory that keeps it.

    Nothing is computed or sent. Raises UsageError before anything is traced.
    """
    plain = compose_plain(overrides)
    config, place = load(plain), find_place(os.environ)
    if place and place.world_size > 1:
        raise UsageError(
            f"trace: a launcher has started {place.world_size} ranks; one process traces, whatever n_devices is: start it alone"
        )
    plan = traced_plan(config)
    run_dir = results.make_run_dir(config.out, config.name)
    profiles.refuse_to_overwrite(run_dir)
    results.write_config(run_dir, plain)
    traced = traced_step(config, plan)
    profiles.write_trace(run_dir, traced)
    results.write_whole(run_dir / results.REPORT, trace_report(traced))
    return traced, run_dir


def _in_ranks(task: str, overrides: Sequence[str]) -> Path | None:
    """The run directory after all ranks have done the task; None on a rank that somebody else started, but for the first."""
    plain = compose_plain(overrides)
    config, place = load(plain), find_place(os.environ)
    run_dir = None if place and place.rank > 0 else results.make_run_dir(config.out, config.name)
    if run_dir:
        profiles.refuse_to_overwrite(run_dir)
        results.write_config(run_dir, plain)
    if place:
        TASKS[task](run_dir or Path(), config, place, terminal_progress() if run_dir else None)
        return run_dir
    assert run_dir is not None
    backend = find_backend(None if config.device.backend == "auto" else config.device.backend)
    world_size = 1 if task == "slice" else find_world_size(backend, None if config.device.n_devices == "auto" else config.device.n_devices)
    threads = max(1, n_cores() // world_size) if config.device.threads_per_rank == "auto" else config.device.threads_per_rank
    failed = launch_ranks(["worker", str(run_dir), task], world_size, threads)
    if failed:
        raise results.failure_of(run_dir, failed)
    return run_dir
