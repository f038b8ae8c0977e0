"""What one rank does: survey, resolve, measure. The same under our own launcher and under torchrun or srun."""

import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TextIO

import torch
from accelerate.utils import broadcast_object_list
from torch.distributed import destroy_process_group, is_initialized

from bench.codec import encode
from bench.config.compose import load
from bench.config.resolve import Demand, models, needs_trial, resolve, run_spec
from bench.config.schema import Config
from bench.cost.flops import Convention, flops_per_token
from bench.cost.memory import run_bytes
from bench.errors import BenchError, DoesNotFit, ExitCode, StoreError, TimedOut, WorkerError
from bench.facts.checkpoint import STATES
from bench.facts.hardware import Backend
from bench.facts.measurement import Estimate
from bench.facts.model import ModelShape
from bench.facts.progress import unheard
from bench.facts.result import Measured
from bench.on_demand import on_demand
from bench.report.terminal import ProgressLine
from bench.run.devices import LocalDevice, find_backend, n_cores
from bench.run.environment import capture_environment
from bench.run.launch import RankPlace, find_place, join_world
from bench.run.measure import Extras, measure_steps
from bench.run.preempt import Guard, ignore_stop_signals
from bench.run.survey import TRIAL_SHAPE, take_survey
from bench.store.attempts import at_work
from bench.store.failures import write_failure
from bench.store.labs import NETWORK, is_measured, write_network
from bench.store.profiles import read_meter, write_meter, write_profile, write_slice
from bench.store.results import read_config, write_measured

TRACE = "trace-rank0.json"


def work(run_dir: Path, task: str = "run") -> int:
    """The exit code of one rank, which reads config.yaml from the run directory; rank 0 leaves there what the task has found."""
    place = find_place(os.environ)
    assert place is not None, "a worker is started by a launcher"
    rank = place.rank
    guard = Guard(before_leaving=lambda text: write_failure(run_dir, rank, ExitCode.PREEMPTED, f"rank {rank} was {text}"))
    guard.install()
    screen = _redirect(run_dir / "log" / f"rank{rank}.log")
    with at_work(run_dir):
        return _work(run_dir, task, place, screen, guard)


def _work(run_dir: Path, task: str, place: RankPlace, screen: TextIO, guard: Guard) -> int:
    rank = place.rank
    try:
        TASKS[task](run_dir, load(read_config(run_dir)), place, ProgressLine(screen) if rank == 0 else None, guard)
    except BenchError as error:
        write_failure(run_dir, rank, error.exit_code, str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001  # whatever it is, its traceback belongs into this rank's log and its cause to the parent
        traceback.print_exc()
        known = known_failure(error, rank)
        write_failure(run_dir, rank, known.exit_code, str(known))
        return known.exit_code
    finally:
        ignore_stop_signals()
        if is_initialized():
            destroy_process_group()
    return ExitCode.OK


def known_failure(error: Exception, rank: int) -> BenchError:
    """What an exception out of torch means."""
    text = f"rank {rank}: {type(error).__name__}: {_first_line(error)}"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return DoesNotFit(f"rank {rank} ran out of memory; use a smaller train.micro_batch_size or model ({_first_line(error)})")
    if isinstance(error, RuntimeError) and re.search(r"timed? ?out|timeout", str(error), re.IGNORECASE):
        return TimedOut(f"rank {rank} waited in vain for another rank (measure.collective_timeout_s)")
    return WorkerError(text)


def measure(config: Config, place: RankPlace, progress: ProgressLine | None, launch_dir: Path | None, guard: Guard) -> Measured:
    """What all ranks measured together, the same on every rank.

    Rank 0 leaves it in its launch directory, and meanwhile what was measured so far; a trace that was asked for goes there too.
    """
    tell, guard.grace_s = progress or unheard, config.measure.grace_s
    backend = find_backend(None if config.device.backend == "auto" else config.device.backend)
    asked = config.device.threads_per_rank
    threads = max(1, n_cores() // place.local_world_size) if asked == "auto" else asked
    join_world(place, backend is Backend.CPU, threads, config.measure.collective_timeout_s)
    if place.world_size > place.local_world_size:  # nodes read files of their own; the first one's may be those of an earlier attempt
        config = load(broadcast_object_list([encode(config)])[0])
    device = LocalDevice(backend, place.local_rank)
    environment = capture_environment(device, place.world_size)
    tell("survey: devices, memory, and a short trial of each precision")
    trial = flops_per_token(TRIAL_SHAPE, Convention.CAUSAL) * TRIAL_SHAPE.seq_len if needs_trial(config) else None
    survey = take_survey(device, place.world_size, place.local_world_size, threads, trial)
    resolved = resolve(config, survey, {shape.name: _demand(shape) for shape in models(config)})
    resolved = load(broadcast_object_list([encode(resolved)])[0])
    own_dir = launch_dir if place.rank == 0 else None
    told = partial(Measured, config=encode(resolved), environment=environment, survey=survey)
    measurement = measure_steps(
        run_spec(resolved), device, environment.host, progress=tell, guard=guard,
        keep=lambda so_far: _keep(own_dir, told(measurement=so_far)), extras=_extras(resolved, own_dir),
    )  # fmt: skip
    if progress:
        progress.close()
    try:
        if own_dir:
            write_measured(own_dir, told(measurement=measurement))
    except OSError as error:
        raise unwritten(own_dir or Path(), error, [measurement.tokens_per_s]) from None
    return told(measurement=measurement)


def _extras(config: Config, own_dir: Path | None) -> Extras:
    """What is read and left besides the measurement; only the rank with a directory of its own leaves anything."""
    return Extras(
        trace=own_dir / TRACE if own_dir else None,
        states=own_dir / STATES if own_dir else None,
        meter=read_meter(Path(config.measure.meter)) if config.measure.meter else None,
        keep_meter=partial(write_meter, own_dir) if own_dir else None,
    )


def unwritten(folder: Path, error: OSError, estimates: Sequence[Estimate]) -> StoreError:
    """What is to be said where a disk refuses a result: the figures themselves, which are nowhere else."""
    figures = "; ".join(f"{e.value:,.0f} tokens/s, {e.confidence:.0%} interval {e.low:,.0f} to {e.high:,.0f}" for e in estimates)
    return StoreError(f"out: {folder} cannot be written ({error.strerror}); measured: {figures or 'nothing'}; make room, run it again")


def _keep(own_dir: Path | None, so_far: Measured) -> None:
    """Nothing; a snapshot is on disk. A disk that refuses it does not stop the measurement: the next one may go through."""
    try:
        if own_dir:
            write_measured(own_dir, so_far)
    except OSError as error:
        with suppress(OSError):  # the log lies on the same disk
            sys.stderr.write(f"a snapshot was not kept: {error}\n")


def _run(run_dir: Path, config: Config, place: RankPlace, progress: ProgressLine | None, guard: Guard) -> None:
    measure(config, place, progress, run_dir, guard)


def _probe(run_dir: Path, config: Config, place: RankPlace, progress: ProgressLine | None, _: Guard) -> None:
    if profile := on_demand("bench.probing", "probe")(config, place, progress):
        write_profile(run_dir, profile)


def _slice(run_dir: Path, config: Config, place: RankPlace, progress: ProgressLine | None, _: Guard) -> None:
    if place.rank == 0:
        write_slice(run_dir, on_demand("bench.probing", "time_slice")(config, place, progress))


def _lab(run_dir: Path, config: Config, place: RankPlace, progress: ProgressLine | None, guard: Guard) -> None:
    """Every point below the run directory that is not there yet, one after another in the same processes; before them the links."""
    points = [file.parent for file in sorted(run_dir.glob("*/config.yaml")) if not is_measured(file.parent)]
    if place.world_size > place.local_world_size and not (run_dir / NETWORK).exists():
        probe = on_demand("bench.probing", "probe_lab")(config, place)  # on two hosts everything, on more the link of each
        if place.rank == 0:
            write_network(run_dir, probe)
    for point in points:
        measure(load(read_config(point)), place, progress, point, guard)


TASKS = {"run": _run, "probe": _probe, "slice": _slice, "lab": _lab}


def _demand(shape: ModelShape) -> Demand:
    one, two = run_bytes(shape, 1), run_bytes(shape, 2)
    return Demand(
        flops_per_sequence=flops_per_token(shape, Convention.CAUSAL) * shape.seq_len,
        fixed_bytes=2 * one - two,
        bytes_per_sequence=two - one,
    )


def _redirect(log: Path) -> TextIO:
    """The terminal, after all this rank prints from now on goes to its log."""
    screen = os.fdopen(os.dup(2), "w")
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    return screen


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0]
