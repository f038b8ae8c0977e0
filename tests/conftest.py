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
# fixtures that take many seconds: of a module, and of all tests
DEAR, DEAR_TO_ALL = {"fitted", "dense", "moe", "let_alone", "browser", "server", "probed", "choice"}, {"small_run", "small_result"}
# quick to start, quick to end; two ranks on the CPU, as on every machine
STORY = ("model=tiny", "device=cpu", "train.micro_batch_size=4", "train.precision=fp32", "page=false")
SMALL = (*STORY, "cluster=oracle_24k_h100")  # and projected to one cluster: the search of four plans takes seconds


def run_bench(*arguments: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """`python -m bench` as a user would start it, outside the checkout."""
    clean = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=cwd, env=clean | (env or {}), capture_output=True, text=True, timeout=timeout, check=False)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share what is dear to make go to one process, where there are several (pytest-xdist, --dist loadgroup)."""
    for item in items:
        wanted = set(getattr(item, "fixturenames", ()))
        if wanted & DEAR_TO_ALL:
            item.add_marker(pytest.mark.xdist_group(min(DEAR_TO_ALL)))
        elif dear := wanted & DEAR:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}:{min(dear)}"))


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
