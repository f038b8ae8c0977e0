"""Sweeps: every point is a row, whatever came of it; what was stopped goes on."""

import signal
import time
from pathlib import Path

import psutil
import pytest

from bench.codec import decode_text
from bench.facts.sweep import Sweep
from bench.store.results import read_result
from tests.conftest import Bench
from tests.faults.conftest import QUICK, Running, Start

ONE = (*QUICK, "device.n_devices=1")


def outcomes(folder: Path) -> dict[str, str]:
    sweep = decode_text(Sweep, (folder / "sweep.json").read_bytes())
    return {row.point.name: row.status.outcome if row.status else "not begun" for row in sweep.rows}


def test_every_point_is_a_row_with_its_reason(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "points.yaml").write_text("- [train.seed=0]\n- [plan.tensor_parallel_size=3]\n- [train.micro_batch_size=0]\n")
    done = bench("sweep", *ONE, "measure.steps=4", "sweep.points=points.yaml", "out=swept")
    assert done.returncode == 0, done.stderr
    assert outcomes(tmp_path / "swept") == {"000-0": "finished", "001-3": "refused", "002-0": "refused"}
    assert "001-3: plan: tensor_parallel_size 3" in done.stdout
    assert (tmp_path / "swept" / "000-0" / "result.json").exists()
    again = bench("sweep", *ONE, "measure.steps=4", "sweep.points=points.yaml", "out=swept")
    assert again.returncode == 0
    assert "round 1" not in again.stderr  # nothing is left to do
    other = bench("sweep", *ONE, "measure.steps=5", "sweep.points=points.yaml", "out=swept")
    assert other.returncode == 2
    assert "was begun with other points" in other.stderr


def test_a_key_that_is_not_there_stops_the_sweep_before_it_begins(bench: Bench, tmp_path: Path) -> None:
    done = bench("sweep", *ONE, "train.sede=1,2", "out=swept")
    assert done.returncode == 2
    assert "did you mean 'train.seed'?" in done.stderr
    assert not (tmp_path / "swept").exists()


@pytest.mark.slow
def test_points_that_take_too_long_or_turn_to_nothing_are_rows(bench: Bench, tmp_path: Path) -> None:
    limits = ("sweep.timeout_s=9", "measure.grace_s=1")
    done = bench("sweep", *ONE, "measure.steps=10,100000", *limits, "out=swept", env={"BENCH_PLANT": "nan:8"})
    assert outcomes(tmp_path / "swept") == {"000-10": "invalid", "001-100000": "timeout"}
    assert done.returncode == 1  # no point has a valid measurement
    assert "not done within 9 s" in done.stdout


def first_rank(running: Running) -> psutil.Process:
    until = time.monotonic() + 60
    while not (ranks := running.ranks):
        assert time.monotonic() < until
        time.sleep(0.05)
    return ranks[0]


@pytest.mark.slow
def test_a_killed_rank_is_tried_again(start: Start, tmp_path: Path) -> None:
    running = start("sweep", *ONE, "measure.steps=30", "train.seed=0,1", "out=swept")
    first_rank(running).kill()
    assert running.end() == 0, running.told
    assert "was killed by signal 9" in running.told
    assert set(outcomes(tmp_path / "swept").values()) == {"finished"}


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_and_two_exclude_each_other(start: Start, tmp_path: Path) -> None:
    arguments = ("sweep", *ONE, "measure.steps=300", "train.seed=0,1,2", "measure.launches=2", "out=swept")
    running = start(*arguments)
    running.wait_for("round 1, 2 of 3")
    second = start(*arguments)
    assert second.end() == 2
    assert "out: swept is in use by process" in second.told
    assert running.stop(signal.SIGTERM)[0] == 75
    again = start(*arguments)
    assert again.end() == 0, again.told
    for name in outcomes(tmp_path / "swept"):
        result = read_result(tmp_path / "swept" / name)
        assert sum(m.n_steps for m in result.launches) >= 600
    assert set(outcomes(tmp_path / "swept").values()) == {"finished"}
