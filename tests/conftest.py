"""Runs that several tests look at."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.facts.result import Result
from bench.store.results import read_result

Bench = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[1]
# quick to start, quick to end; two ranks on the CPU, as on every machine; threads that spin beside other tests take for ever
STORY = ("model=tiny", "device=cpu", "device.threads_per_rank=1", "train.micro_batch_size=4", "train.precision=fp32", "page=false")
SMALL = (*STORY, "cluster=oracle_24k_h100")  # and projected to one cluster: the search of four plans takes seconds


def run_bench(*arguments: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """`python -m bench` as a user would start it, outside the checkout."""
    clean = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=cwd, env=clean | (env or {}), capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """The command line, in an empty directory."""
    return lambda *arguments, **more: run_bench(*arguments, cwd=tmp_path, **more)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A finished run of the smallest model on two ranks: what it printed, and its directory."""
    cwd = tmp_path_factory.mktemp("small")
    done = run_bench("run", *STORY, "page=true", "measure.steps=60", "out=kept", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done, cwd / "kept"


@pytest.fixture(scope="session")
def small_result(small_run: tuple[subprocess.CompletedProcess[str], Path]) -> Result:
    """Its result, decoded."""
    return read_result(small_run[1])
