"""Processes that are told to stop, killed, or hang: what was measured stays, the cause is one line, the same command goes on."""

import json
import resource
import signal
import time
from pathlib import Path

import pytest

from bench.facts.attempt import RunState
from bench.facts.measurement import MeasureEnd, WarningKind
from bench.store.attempts import read_status
from bench.store.results import read_result
from tests.conftest import Bench
from tests.faults.conftest import QUICK, Start, wait_until_gone

LONG = (*QUICK, "measure.steps=100000", "out=kept")
slowly = pytest.mark.slow
ENOUGH_S = 5.0  # from SIGTERM to exit 75, at this size


def last_line(told: str) -> str:
    return told.strip().splitlines()[-1]


@pytest.mark.alone
@pytest.mark.parametrize("moment", [pytest.param(m, marks=slowly) for m in ("survey", "set-up")] + ["warm-up", "measuring: "])
def test_sigterm_is_obeyed_soon_at_any_moment(start: Start, tmp_path: Path, moment: str) -> None:
    running = start("run", *LONG)
    running.wait_for(moment)
    ranks = running.ranks
    code, seconds = running.stop()
    assert code == 75, running.told
    assert seconds < ENOUGH_S
    assert last_line(running.told).startswith("bench: asked to stop by SIGTERM; kept in kept: ")
    assert "Traceback" not in running.told
    wait_until_gone(ranks)
    status = read_status(tmp_path / "kept")
    assert status is not None
    assert (status.state, status.exit_code) == (RunState.PARTIAL, 75)


@slowly
@pytest.mark.alone
def test_sigterm_during_compilation_is_obeyed_soon(start: Start) -> None:
    running = start("run", *LONG, "train.compile=true")
    running.wait_for("set-up")
    time.sleep(4)  # the first step compiles, for half a minute here
    code, seconds = running.stop()
    assert code == 75, running.told
    assert seconds < ENOUGH_S


def test_what_was_measured_is_kept_and_gone_on_with(start: Start, tmp_path: Path) -> None:
    steps = ("measure.steps=400", "out=kept")
    running = start("run", *QUICK, *steps)
    running.wait_for("measuring: ")
    assert running.stop()[0] == 75
    so_far = json.loads((tmp_path / "kept" / "partial.json").read_text())
    n_before = so_far["measurement"]["tokens_per_s"]["n_steps"]
    assert 0 < n_before < 400
    again = start("run", *QUICK, *steps)
    assert again.end() == 0, again.told
    result = read_result(tmp_path / "kept")
    first, second = result.launches
    assert (first.measure_end, first.n_steps) == (MeasureEnd.PREEMPTED, n_before)
    assert second.n_steps == max(20, 400 - n_before)
    assert result.config["measure"]["steps"] == 400
    assert WarningKind.CUT_SHORT in {w.kind for w in result.warnings}
    assert not (tmp_path / "kept" / "partial.json").exists()
    assert start("run", *QUICK, *steps).end() == 0  # there is nothing left to do
    assert read_result(tmp_path / "kept") == result


@slowly
def test_sigterm_to_everyone_twice_is_one_sigterm(start: Start, tmp_path: Path) -> None:
    running = start("run", *LONG)
    running.wait_for("measuring: ")
    everyone = running.ranks
    for _ in range(2):
        for process in everyone:
            process.send_signal(signal.SIGTERM)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    assert running.end() == 75
    assert "Traceback" not in running.told
    wait_until_gone(everyone)
    until = time.monotonic() + 5
    while not (tmp_path / "kept" / "measured.json").exists():
        assert time.monotonic() < until


@slowly
def test_a_rank_that_is_asked_to_stop_stops_all(start: Start) -> None:
    running = start("run", *LONG)
    running.wait_for("measuring: ")
    running.ranks[1].send_signal(signal.SIGUSR1)
    assert running.end() == 75
    assert "asked to stop by SIGUSR1" in last_line(running.told)


def test_a_killed_rank_is_named_and_the_next_attempt_finishes(start: Start, tmp_path: Path) -> None:
    running = start("run", *LONG)
    running.wait_for("measuring: ")
    time.sleep(6)  # a snapshot is taken every five seconds
    ranks = running.ranks
    ranks[1].kill()
    assert running.end() == 75
    assert last_line(running.told).startswith("bench: rank 1 was killed by signal 9")
    wait_until_gone(ranks)
    assert json.loads((tmp_path / "kept" / "partial.json").read_text())["measurement"]["measure_end"] == "preempted"


@pytest.mark.slow
def test_ranks_end_with_their_launcher_and_keep_what_they_measured(start: Start, tmp_path: Path) -> None:
    running = start("run", *QUICK, "measure.steps=300", "out=kept")
    running.wait_for("measuring: ")
    ranks = running.ranks
    running.process.kill()
    wait_until_gone(ranks)
    assert (tmp_path / "kept" / "measured.json").exists()
    assert start("run", *QUICK, "measure.steps=300", "out=kept").end() == 0
    assert len(read_result(tmp_path / "kept").launches) == 2


@pytest.mark.slow
def test_ctrl_c_keeps_and_prints_what_was_measured(start: Start) -> None:
    running = start("run", *LONG)
    running.wait_for("measuring: ")
    assert running.stop(signal.SIGINT)[0] == 130
    assert "tokens/s" in running.told
    assert last_line(running.told).startswith("bench: interrupted; kept in kept")


def test_a_hung_rank_is_named_with_its_stack(start: Start, tmp_path: Path) -> None:
    limits = ("measure.collective_timeout_s=4", "measure.grace_s=1")
    running = start("run", *LONG, *limits, BENCH_PLANT="hang:1:30")
    assert running.end() == 124, running.told
    assert "missing: rank 1" in last_line(running.told)
    assert (
        "in fault_of" in (tmp_path / "kept" / "log" / "rank1.log").read_text()
        or "plant.py" in (tmp_path / "kept" / "log" / "rank1.log").read_text()
    )
    assert read_status(tmp_path / "kept").state is RunState.FAILED  # type: ignore[union-attr]


def test_memory_that_runs_out_on_one_rank_is_exit_4(bench: Bench, tmp_path: Path) -> None:
    """64 GiB of addresses: the ranks start with a few, and one of them takes all it can."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**36, before[1]))
    try:
        done = bench("run", *LONG, env={"BENCH_PLANT": "hoard:1:5", "MALLOC_TOP_PAD_": "0"})
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert done.returncode == 4, done.stderr
    assert last_line(done.stderr).startswith("bench: rank 1 ")
    assert "memory" in last_line(done.stderr)
    assert read_status(tmp_path / "kept").outcome == "out of memory"  # type: ignore[union-attr]


@slowly
def test_a_wall_clock_that_jumps_changes_no_figure(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", *QUICK, "measure.steps=60", "out=kept", env={"BENCH_PLANT": "clock:20:-86400"})
    assert done.returncode == 0, done.stderr
    m = read_result(tmp_path / "kept").measurement
    assert all(s > 0 for r in m.ranks for s in (*r.step_s, *r.window_s))
    assert max(m.ranks[0].step_s) < 20
