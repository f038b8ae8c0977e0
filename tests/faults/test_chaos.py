"""Two hundred kills at random moments of a sweep: nothing is lost, nothing is there twice, nothing is torn."""

import json
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench import stats
from bench.facts.measurement import Estimate
from bench.store.results import read_result
from tests.conftest import run_bench
from tests.faults.conftest import QUICK, Running

N_KILLS, N_POINTS, SEED = 200, 10, 20261125
LONGEST_LIFE_S = 12.0
SWEEP = ("sweep", *QUICK, "device.n_devices=1", "measure.steps=100", f"train.seed=range({N_POINTS})", "sweep.retries=20", "out=swept")


def finished(folder: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in folder.glob("*/result.json")}


def no_file_is_torn(folder: Path) -> None:
    for file in folder.rglob("*.json"):
        json.loads(file.read_text())


def disturb(running: Running, dice: random.Random) -> bool:
    """Whether something was killed after a while: the sweep, or one of its ranks. Nothing is where it has ended before."""
    number = dice.choice([signal.SIGTERM, signal.SIGKILL])
    until = time.monotonic() + dice.uniform(0.0, LONGEST_LIFE_S)
    while time.monotonic() < until and running.process.poll() is None:
        time.sleep(0.02)
    if running.process.poll() is not None:
        return False
    try:
        victims = [running.process, *(running.ranks if dice.random() < 0.3 else [])]
        victims[-1].send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def kill_until_finished(tmp_path: Path, dice: random.Random, n_kills: int) -> int:
    """Kills that it took: the sweep goes on after each, and is left alone when there were enough. What is finished stays as it is."""
    n = 0
    while True:
        before = finished(tmp_path / "swept")
        running = Running(SWEEP, tmp_path, {})
        try:
            while n < n_kills and running.process.poll() is None:
                n += disturb(running, dice)
                time.sleep(0.5)
            code = running.end(600)
        finally:
            running.log.close()
        no_file_is_torn(tmp_path / "swept")
        after = finished(tmp_path / "swept")
        assert {name: after.get(name) for name in before} == before
        assert "Traceback" not in running.told, running.told
        if code == 0:
            return n
        # before Python has come to the first line of ours nobody listens, and nothing has been told
        assert code in (75, -signal.SIGKILL) or (code == -signal.SIGTERM and not running.told), (code, running.told)


def pooled(folder: Path) -> Estimate:
    results = [read_result(file.parent) for file in sorted(folder.glob("*/result.json"))]
    return stats.over_launches([r.measurement.tokens_per_s for r in results])[0]


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.skipif(sys.platform != "linux", reason="ranks learn of the death of their launcher from Linux")
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    dice, n, swept = random.Random(SEED), 0, []
    while n < N_KILLS:
        n += kill_until_finished(tmp_path, dice, N_KILLS - n)
        names = sorted(finished(tmp_path / "swept"))
        assert [name[:3] for name in names] == [f"{i:03d}" for i in range(N_POINTS)]
        swept.append(pooled(tmp_path / "swept"))
        shutil.move(tmp_path / "swept", tmp_path / f"swept{len(swept)}")
        print(f"{n} kills so far, {len(swept)} sweeps finished", file=sys.__stderr__, flush=True)
    calm = run_bench(*SWEEP, cwd=tmp_path, timeout=900)
    assert calm.returncode == 0, calm.stderr
    undisturbed, disturbed = pooled(tmp_path / "swept"), stats.over_launches(swept)[0] if len(swept) > 1 else swept[0]
    print(f"disturbed {disturbed.value:,.0f}, undisturbed {undisturbed.value:,.0f} tokens/s", file=sys.__stderr__)
    apart = abs(np.log(disturbed.value / undisturbed.value))
    assert apart <= disturbed.half_width_fraction + undisturbed.half_width_fraction
