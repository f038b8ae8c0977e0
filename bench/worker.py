"""What one rank does: survey, resolve, measure. The same under our own launcher and under torchrun or srun."""

import os
import sys
import traceback
from pathlib import Path
from typing import TextIO

from accelerate.utils import broadcast_object_list
from torch.distributed import destroy_process_group, is_initialized

from bench.codec import encode
from bench.config.compose import load
from bench.config.resolve import Demand, models, needs_trial, resolve, run_spec
from bench.config.schema import Config
from bench.cost.flops import Convention, flops_per_token
from bench.cost.memory import run_bytes
from bench.errors import BenchError, ExitCode
from bench.facts.hardware import Backend
from bench.facts.model import ModelShape
from bench.facts.result import Measured
from bench.probing import probe, time_slice
from bench.report.terminal import ProgressLine
from bench.run.devices import LocalDevice, find_backend, n_cores
from bench.run.environment import capture_environment
from bench.run.launch import RankPlace, find_place, join_world
from bench.run.measure import measure_steps
from bench.run.survey import TRIAL_SHAPE, take_survey
from bench.store.profiles import write_profile, write_slice
from bench.store.results import read_config, write_config, write_failure, write_measured


def work(run_dir: Path, task: str = "run") -> int:
    """The exit code of one rank, which reads config.yaml from the run directory; rank 0 leaves there what the task has found."""
    place = find_place(os.environ)
    assert place is not None, "a worker is started by a launcher"
    screen = _redirect(run_dir / "log" / f"rank{place.rank}.log")
    try:
        TASKS[task](run_dir, load(read_config(run_dir)), place, ProgressLine(screen) if place.rank == 0 else None)
    except BenchError as error:
        write_failure(run_dir, place.rank, error.exit_code, str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001  # whatever it is, its traceback belongs into this rank's log and its cause to the parent
        traceback.print_exc()
        write_failure(run_dir, place.rank, ExitCode.FAILURE, f"rank {place.rank}: {type(error).__name__}: {_first_line(error)}")
        return ExitCode.FAILURE
    finally:
        if is_initialized():
            destroy_process_group()
    return ExitCode.OK


def measure(config: Config, place: RankPlace, progress: ProgressLine | None, run_dir: Path | None) -> Measured:
    """What all ranks measured together, the same on every rank. A trace that was asked for goes to the run directory."""
    tell = progress or (lambda _: None)
    backend = find_backend(None if config.device.backend == "auto" else config.device.backend)
    asked = config.device.threads_per_rank
    threads = max(1, n_cores() // place.local_world_size) if asked == "auto" else asked
    join_world(place, backend is Backend.CPU, threads)
    device = LocalDevice(backend, place.local_rank)
    environment = capture_environment(device, place.world_size)
    tell("survey: devices, memory, and a short trial of each precision")
    trial = flops_per_token(TRIAL_SHAPE, Convention.CAUSAL) * TRIAL_SHAPE.seq_len if needs_trial(config) else None
    survey = take_survey(device, place.world_size, place.local_world_size, threads, trial)
    resolved = resolve(config, survey, {shape.name: _demand(shape) for shape in models(config)})
    resolved = load(broadcast_object_list([encode(resolved)])[0])
    trace = run_dir / "trace-rank0.json" if run_dir and place.rank == 0 else None
    measurement = measure_steps(run_spec(resolved), device, environment.host, tell, trace)
    if progress:
        progress.close()
    return Measured(config=encode(resolved), environment=environment, survey=survey, measurement=measurement)


def _run(run_dir: Path, config: Config, place: RankPlace, progress: ProgressLine | None) -> None:
    measured = measure(config, place, progress, run_dir)
    if place.rank == 0:
        write_config(run_dir, measured.config)
        write_measured(run_dir, measured)


def _probe(run_dir: Path, config: Config, place: RankPlace, progress: ProgressLine | None) -> None:
    if profile := probe(config, place, progress):
        write_profile(run_dir, profile)


def _slice(run_dir: Path, config: Config, place: RankPlace, progress: ProgressLine | None) -> None:
    if place.rank == 0:
        write_slice(run_dir, time_slice(config, place, progress))


TASKS = {"run": _run, "probe": _probe, "slice": _slice}


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
