"""One process per device: which role this process has, and how the others are started."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

import torch
from accelerate import PartialState
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import bench
from bench.run.nodes import NodePlace, interface_variables, is_node_step, rendezvous
from bench.run.preempt import GRACE_S, LAUNCHER_PID, STOP_SIGNALS

COLLECTIVE_TIMEOUT_S = 300.0
SHUTDOWN_TIMEOUT = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"  # torch's: seconds from the ranks' signal to their end by force; 30 before 2.13

# glibc's allocator keeps what a step frees: given back, it would be cleared and mapped again in the next (0.64 of the rate of
# matrix products becomes 0.73 on two cores of an AMD EPYC)
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_TOP_PAD_": "268435456"}


class Role(StrEnum):
    """What this process is, decided from its environment."""

    LAUNCHER = "launcher"  # nobody has started ranks: this process does
    RANK = "rank"  # torchrun, accelerate launch, srun or mpirun has started one process per device


@dataclass(frozen=True)
class RankPlace:
    """Where this rank stands."""

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int


# name of the variables for rank, local rank, world size and local world size, by who starts the ranks; the first complete row wins
RANK_VARIABLES = (
    ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
)


def find_place(environment: Mapping[str, str]) -> RankPlace | None:
    """The place of this rank, or None where nobody has started ranks.

    Slurm sets SLURM_PROCID in a batch script too: only a numbered step with several tasks on a node makes ranks.
    """
    for names in RANK_VARIABLES:
        values = [environment.get(name, "").split("(")[0] for name in names]
        if not all(value.isdigit() for value in values[:3]):
            continue
        is_step = environment.get("SLURM_STEP_ID", "").isdigit() and int(values[2]) > 1 and not is_node_step(environment)
        if names[0].startswith("SLURM") and not is_step:
            continue
        local = int(values[3]) if values[3].isdigit() else int(values[2])
        return RankPlace(rank=int(values[0]), local_rank=int(values[1]), world_size=int(values[2]), local_world_size=local)
    return None


def find_role(environment: Mapping[str, str]) -> Role:
    """The role of this process."""
    return Role.RANK if find_place(environment) else Role.LAUNCHER


def join_world(place: RankPlace, is_cpu: bool, threads_per_rank: int, collective_timeout_s: float = COLLECTIVE_TIMEOUT_S) -> None:
    """Nothing; this process has its threads and has joined the process group. A world of one has none, and no wrapper pays for it."""
    names = {"RANK": place.rank, "LOCAL_RANK": place.local_rank, "WORLD_SIZE": place.world_size, "LOCAL_WORLD_SIZE": place.local_world_size}
    for name, value in names.items():
        if place.world_size > 1:
            os.environ[name] = str(value)
        else:
            os.environ.pop(name, None)
    torch.set_num_threads(threads_per_rank)
    PartialState(cpu=is_cpu, timeout=timedelta(seconds=collective_timeout_s))


@dataclass(frozen=True)
class Ended:
    """How ranks ended, as their launcher saw it."""

    exit_codes: dict[int, int]  # of the ranks that failed, by rank; a negative one is the signal that killed it
    signal: int | None = None  # that asked the launcher itself to stop
    is_late: bool = False  # they had not ended in the time they were given
    killed_for_memory: bool = False  # the kernel says so of some process of this machine in the meantime


class _Late(Exception):  # never leaves this module
    pass


def launch_ranks(
    arguments: Sequence[str],
    n_ranks: int,
    threads_per_rank: int,
    grace_s: float = GRACE_S,
    timeout_s: float | None = None,
    *,
    node: NodePlace | None = None,
) -> Ended:
    """How the `n_ranks` of this machine ended. Runs `python -m bench ARGUMENTS` in each. A time limit wants the main thread."""
    for name in logging.root.manager.loggerDict:  # each of torch's has its own level; the cause is told once, by whoever called
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        **rendezvous(node),
        nproc_per_node=n_ranks,
        max_restarts=0,
        monitor_interval=0.1,
        signals_to_handle=",".join(number.name for number in (*STOP_SIGNALS, signal.SIGQUIT)),
    )
    variables = rank_variables(threads_per_rank)
    variables |= interface_variables(node) | {LAUNCHER_PID: str(os.getpid()), SHUTDOWN_TIMEOUT: str(int(grace_s) + 5)}
    memory_kills = count_memory_kills()
    try:
        with _environment(variables), _own_handlers_afterwards(), _time_limit(timeout_s):
            elastic_launch(config, sys.executable)("-u", "-m", "bench", *arguments)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        return Ended(codes, killed_for_memory=count_memory_kills() > memory_kills)
    except SignalException as error:
        return Ended({}, signal=int(error.sigval))
    except _Late:
        return Ended({}, is_late=True)
    return Ended({})


def rank_variables(threads_per_rank: int) -> dict[str, str]:
    """Variables that every rank is started with."""
    kept = {name: os.environ.get(name, value) for name, value in KEEP_MEMORY.items()}
    return kept | {"OMP_NUM_THREADS": str(threads_per_rank), "PYTHONPATH": _with_package(os.environ.get("PYTHONPATH", ""))}


def count_memory_kills() -> int:
    """Processes that this machine's kernel has killed so far because memory ran out, in a container's limit or altogether."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextmanager
def _own_handlers_afterwards() -> Iterator[None]:
    """The caller's signal handlers are as before afterwards: the elastic agent leaves its own behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _time_limit(timeout_s: float | None) -> Iterator[None]:
    """Raises _Late inside where the time is over; the elastic agent then ends its ranks as on any other exception."""
    if timeout_s is None:
        yield
        return

    def is_over(*_: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, is_over)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The environment that ranks inherit; the caller's own is as before afterwards."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _with_package(python_path: str) -> str:
    here = str(Path(bench.__file__).resolve().parent.parent)
    return os.pathsep.join([here, *(p for p in python_path.split(os.pathsep) if p and p != here)])
