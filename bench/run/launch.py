"""One process per device: which role this process has, and how the others are started."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

import torch
from accelerate import PartialState
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import bench

COLLECTIVE_TIMEOUT = timedelta(seconds=300)


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

    Slurm sets SLURM_PROCID in a batch script too: only a numbered step with several tasks makes ranks.
    """
    for names in RANK_VARIABLES:
        values = [environment.get(name, "").split("(")[0] for name in names]
        if not all(value.isdigit() for value in values[:3]):
            continue
        if names[0].startswith("SLURM") and not (environment.get("SLURM_STEP_ID", "").isdigit() and int(values[2]) > 1):
            continue
        local = int(values[3]) if values[3].isdigit() else int(values[2])
        return RankPlace(rank=int(values[0]), local_rank=int(values[1]), world_size=int(values[2]), local_world_size=local)
    return None


def find_role(environment: Mapping[str, str]) -> Role:
    """The role of this process."""
    return Role.RANK if find_place(environment) else Role.LAUNCHER


def join_world(place: RankPlace, is_cpu: bool, threads_per_rank: int) -> None:
    """Nothing; this process has its threads and has joined the process group. A world of one has none, and no wrapper pays for it."""
    names = {"RANK": place.rank, "LOCAL_RANK": place.local_rank, "WORLD_SIZE": place.world_size, "LOCAL_WORLD_SIZE": place.local_world_size}
    for name, value in names.items():
        if place.world_size > 1:
            os.environ[name] = str(value)
        else:
            os.environ.pop(name, None)
    torch.set_num_threads(threads_per_rank)
    PartialState(cpu=is_cpu, timeout=COLLECTIVE_TIMEOUT)


def launch_ranks(arguments: Sequence[str], n_ranks: int, threads_per_rank: int) -> dict[int, int]:
    """Exit codes of the ranks that failed, by rank; empty when all ended well. Runs `python -m bench ARGUMENTS` in each."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the cause is told once, by whoever called
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n_ranks,
        run_id=f"bench-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    variables = {name: os.environ.get(name, value) for name, value in KEEP_MEMORY.items()}
    variables |= {"OMP_NUM_THREADS": str(threads_per_rank), "PYTHONPATH": _with_package(os.environ.get("PYTHONPATH", ""))}
    try:
        with _environment(variables):
            elastic_launch(config, sys.executable)("-u", "-m", "bench", *arguments)
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    return {}


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
