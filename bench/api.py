"""The verbs as library calls, with typed results."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import count
from pathlib import Path
from typing import Any, cast

from bench.config.compose import compose, compose_plain, load
from bench.copies import copies
from bench.errors import UsageError
from bench.facts.profile import DeviceProfile, SliceMeasurement
from bench.facts.result import Result
from bench.facts.trace import StepTrace
from bench.jobs import Job, finished, job_at, raise_failure
from bench.on_demand import on_demand
from bench.report.profile_tables import profile_report, slice_report
from bench.report.terminal import tell, terminal_progress
from bench.report.trace_tables import trace_report
from bench.reporting import write_page
from bench.run.devices import find_backend, find_world_size, n_cores
from bench.run.launch import RankPlace, find_place, launch_ranks
from bench.run.nodes import find_node
from bench.run.preempt import Guard
from bench.store import profiles, results
from bench.worker import TASKS


def run(*overrides: str) -> Result:
    """The result of the main job: measure here, project to the clusters; also written to the run directory.

    `overrides` are those of the command line, such as "model=tiny". A directory that an earlier attempt was stopped in is gone on
    with, and one that holds the result already is read. Inside ranks that somebody else has started it is called on every one of
    them, returns the same on all, and rank 0 writes.
    Raises UsageError before anything runs, InvalidMeasurement after the result has been written, and Preempted or Interrupted after
    what was measured so far has been.
    """
    config, place = compose(overrides), find_place(os.environ)
    if config.results_uri and not config.out:
        raise UsageError("results_uri: given without out; name a directory, whose last part is its name in the store, as in out=runs/a1")
    out, uri = Path(config.out or "."), None if place and place.rank > 0 else config.results_uri
    with copies(uri, out.parent, [out.name]) as copy:
        try:
            result = run_in_turn(overrides)[0]
            if result.run_dir and config.page:
                write_page(Path(result.run_dir), result)
        finally:
            copy(out.name)
    return result


def run_in_turn(*configurations: Sequence[str]) -> tuple[Result, ...]:
    """The results of several configurations, as of `run`, their launches interleaved.

    What drifts on this machine (heat, neighbours) then drifts for all of them: every other round goes backwards.
    """
    place = find_place(os.environ)
    asked = [compose_plain(overrides) for overrides in configurations]
    ready = [finished(plain, load(plain)) for plain in asked]
    with ExitStack() as stack:
        jobs = [None if done else stack.enter_context(_job(plain, place)) for plain, done in zip(asked, ready, strict=True)]
        for turn in count():
            if not (open_jobs := [job for job in jobs if job and job.share_left() > 0]):
                break
            for job in open_jobs if turn % 2 == 0 else reversed(open_jobs):
                job.launch()
        return tuple(done or cast(Job, job).finish() for done, job in zip(ready, jobs, strict=True))


def _job(plain: dict[str, Any], place: RankPlace | None) -> AbstractContextManager[Job]:
    config = load(plain)
    if place and config.measure.launches > 1:
        n = config.measure.launches
        raise UsageError(f"measure.launches: {n} given; whoever started these ranks must start them {n} times; use 1")
    return job_at(plain, place, is_last=False)


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
    plan = on_demand("bench.tracing", "traced_plan")(config)
    run_dir = results.make_run_dir(config.out, config.name)
    results.refuse_to_overwrite(run_dir, *profiles.KEPT)
    results.write_config(run_dir, plain)
    traced: StepTrace = on_demand("bench.tracing", "traced_step")(config, plan)
    profiles.write_trace(run_dir, traced)
    results.write_whole(run_dir / results.REPORT, trace_report(traced))
    return traced, run_dir


def _in_ranks(task: str, overrides: Sequence[str]) -> Path | None:
    """The run directory after all ranks have done the task; None on a rank that somebody else started, but for the first."""
    plain = compose_plain(overrides)
    config, place = load(plain), find_place(os.environ)
    run_dir = None if place and place.rank > 0 else results.make_run_dir(config.out, config.name)
    if run_dir:
        results.refuse_to_overwrite(run_dir, *profiles.KEPT)
        results.write_config(run_dir, plain)
    if place:
        TASKS[task](run_dir or Path(), config, place, terminal_progress() if run_dir else None, Guard(before_leaving=tell))
        return run_dir
    assert run_dir is not None
    backend = find_backend(None if config.device.backend == "auto" else config.device.backend)
    world_size = 1 if task == "slice" else find_world_size(backend, None if config.device.n_devices == "auto" else config.device.n_devices)
    threads = max(1, n_cores() // world_size) if config.device.threads_per_rank == "auto" else config.device.threads_per_rank
    node = find_node(os.environ, config.launch)
    raise_failure(launch_ranks(["worker", str(run_dir), task], world_size, threads, node=node), run_dir, world_size)
    return run_dir
