"""Runs that are disturbed while they are at it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import SMALL

QUICK = (*SMALL, "measure.breakdown_steps=0", "measure.warmup_min_steps=2", "measure.warmup_max_steps=2")


class Running:
    """`python -m bench` at work in a directory, with all that it has started."""

    def __init__(self, arguments: tuple[str, ...], cwd: Path, env: dict[str, str]) -> None:
        self.log = (cwd / f"stderr-{time.monotonic_ns()}").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench", *arguments], cwd=cwd, env=os.environ | env, stdout=self.log, stderr=self.log, text=True
        )

    @property
    def told(self) -> str:
        """What it has printed so far."""
        return Path(self.log.name).read_text(encoding="utf-8")

    @property
    def ranks(self) -> list[psutil.Process]:
        """Its ranks, by rank."""
        found = [p for p in psutil.Process(self.process.pid).children(recursive=True) if "worker" in p.cmdline()]
        return sorted(found, key=lambda p: int(p.environ().get("RANK", "0")))

    def wait_for(self, text: str, timeout_s: float = 90) -> None:
        """Nothing, as soon as it has printed that."""
        until = time.monotonic() + timeout_s
        while text not in self.told:
            assert time.monotonic() < until, f"no {text!r} in {self.told}"
            assert self.process.poll() is None, self.told
            time.sleep(0.02)

    def end(self, timeout_s: float = 200) -> int:
        """Its exit code."""
        return self.process.wait(timeout_s)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Its exit code after a signal, and the seconds until then."""
        begun = time.monotonic()
        self.process.send_signal(number)
        return self.end(), time.monotonic() - begun


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `bench` in an empty directory; whatever is left of it at the end is killed."""
    begun: list[Running] = []

    def go(*arguments: str, **env: str) -> Running:
        begun.append(Running(arguments, tmp_path, env))
        return begun[-1]

    yield go
    for running in begun:
        with suppress(psutil.NoSuchProcess):
            for process in [*psutil.Process(running.process.pid).children(recursive=True), running.process]:
                process.kill()
        running.process.wait(10)
        running.log.close()


def wait_until_gone(processes: list[psutil.Process], timeout_s: float = 20) -> None:
    """Nothing; fails where one of them is still there afterwards."""
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
