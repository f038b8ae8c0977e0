"""A training that is stopped goes on at its step: the same losses as of one that was let alone, from the newest whole state."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.facts.measurement import MeasureEnd, Measurement, WarningKind
from bench.facts.result import Result
from bench.run.checkpoint import LATEST, save
from bench.store.results import read_result
from tests.conftest import Bench, run_bench
from tests.faults.conftest import QUICK, Running, Start
from tests.faults.test_checkpoint import flip, shard, trained
from tests.faults.test_directories import last_line, needs_root

EVERY = 25
SAVED = (*QUICK, f"train.checkpoint_every_steps={EVERY}", "measure.min_steps=10")
SHAPE = ("model.d_model=32", "model.n_heads=2", "model.n_kv_heads=2", "model.d_ff=64", "model.seq_len=32")
STEPS = (*SHAPE, "train.micro_batch_size=1", "measure.steps=150", "device.threads_per_rank=1")


def on(n_ranks: int) -> tuple[str, ...]:
    return (*SAVED, *STEPS, f"device.n_devices={n_ranks}", "out=kept")


def wait_for_state(running: Running, folder: Path, step: int) -> None:
    """Nothing, as soon as the state after so many steps counts."""
    until = time.monotonic() + 90
    while not (folder / f"step-{step}").exists():
        assert time.monotonic() < until, running.told
        assert running.process.poll() is None, running.told
        time.sleep(0.01)


def curve(m: Measurement) -> dict[int, float | None]:
    """Losses by step."""
    assert m.training is not None
    return {m.training.first_step + i: loss for i, loss in enumerate(m.training.losses)}


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["one rank", "two ranks"])
def let_alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Measurement]:
    """Ranks, and a training on them that nobody has stopped."""
    cwd = tmp_path_factory.mktemp("alone")
    done = run_bench("run", *on(request.param), cwd=cwd)
    assert done.returncode == 0, done.stderr
    return request.param, read_result(cwd / "kept").measurement


def stopped(start: Start, tmp_path: Path, n_ranks: int) -> None:
    """Nothing; a run was asked to stop after its second state, and has kept what it had."""
    running = start("run", *on(n_ranks))
    wait_for_state(running, tmp_path / "kept" / "checkpoints", 2 * EVERY)
    code, _ = running.stop()
    assert code == 75, running.told


def gone_on(start: Start, tmp_path: Path, n_ranks: int) -> Result:
    again = start("run", *on(n_ranks))
    assert again.end() == 0, again.told
    return read_result(tmp_path / "kept")


def test_losses_are_those_of_a_training_that_was_let_alone(start: Start, tmp_path: Path, let_alone: tuple[int, Measurement]) -> None:
    n_ranks, whole = let_alone
    stopped(start, tmp_path, n_ranks)
    result = gone_on(start, tmp_path, n_ranks)
    first, second = result.launches
    assert first.measure_end is MeasureEnd.PREEMPTED
    assert first.training is not None
    assert second.training is not None
    assert second.training.read is not None
    # saved once more when it was asked to stop, after its last step
    assert second.training.read.step == first.training.writes[-1].step == first.training.first_step + len(first.training.losses) - 1
    undisturbed, pieces = curve(whole), {**curve(first), **curve(second)}
    assert sorted(pieces) == list(range(1, max(pieces) + 1))  # nothing left out
    same = undisturbed.keys() & pieces.keys()
    assert len(same) > 150
    assert {step: pieces[step] for step in same} == {step: undisturbed[step] for step in same}  # bit by bit
    assert f"went on from step {second.training.read.step}" in (tmp_path / "kept" / "report.md").read_text()


@pytest.mark.slow
def test_a_torn_state_is_passed_over_and_said(start: Start, tmp_path: Path) -> None:
    stopped(start, tmp_path, 1)
    states = tmp_path / "kept" / "checkpoints"
    newest = (states / LATEST).read_text()
    flip(states / newest)
    result = gone_on(start, tmp_path, 1)
    first, second = result.launches
    assert second.training is not None
    assert second.training.read is not None
    assert 0 <= int(newest.removeprefix("step-")) - second.training.read.step <= EVERY + 1
    assert second.training.read.step % EVERY == 0
    (told,) = [w.text for w in result.warnings if w.kind is WarningKind.CHECKPOINT]
    assert f"checkpoint: {newest} is torn: " in told
    before, again = curve(first), curve(second)
    same = before.keys() & again.keys()  # what was done after the state that is gone on from
    assert same
    assert {step: again[step] for step in same} == {step: before[step] for step in same}


def test_saves_lie_between_windows_and_nothing_is_saved_unasked(let_alone: tuple[int, Measurement], small_result: Result) -> None:
    _, m = let_alone
    assert m.training is not None
    edges = {sum(m.steps_per_window[:i]) for i in range(len(m.steps_per_window) + 1)}
    before = 1 + len(m.ranks[0].warmup_s)  # one step is looked at before the warm-up
    snapshots = m.training.first_step - 1 + len(m.training.losses) - before - m.n_steps - 1
    # each snapshot is a step of its own, untimed, somewhere between two windows
    assert all(any(write.step - before - k in edges for k in range(snapshots + 1)) for write in m.training.writes)
    assert [write.step for write in m.training.writes] == list(range(EVERY, EVERY * (len(m.training.writes) + 1), EVERY))
    assert len(m.training.writes) >= 6
    assert small_result.measurement.training is None
    assert not (Path(small_result.run_dir) / "checkpoints").exists()


def test_another_model_is_refused_in_one_line(bench: Bench, tmp_path: Path) -> None:
    save(trained(1), tmp_path / "kept" / "checkpoints", 1)
    done = bench("run", *on(1))
    assert done.returncode == 2, done.stderr
    assert "is of a model with " in last_line(done.stderr)
    assert "give the same model or another out" in last_line(done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("taskset"), reason="fewer cores are made by taskset")
def test_another_number_of_devices_goes_on_from_the_same_state(start: Start, tmp_path: Path) -> None:
    arguments = (*SAVED, *STEPS, "train.global_batch_size=2", "out=kept")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one core")
    running = start("run", *arguments)
    wait_for_state(running, tmp_path / "kept" / "checkpoints", 4 * EVERY)
    assert running.stop()[0] == 75
    before = json.loads((tmp_path / "kept" / "partial.json").read_text())["measurement"]["training"]
    core = str(min(os.sched_getaffinity(0)))
    command = ["taskset", "-c", core, sys.executable, "-m", "bench", "run", *arguments]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert again.returncode == 0, again.stderr
    m = read_result(tmp_path / "kept").measurement
    assert m.world_size == 1
    assert m.training is not None
    assert m.training.read is not None
    assert m.training.read.step == before["writes"][-1]["step"]
    assert m.training.read.changed == ()
    # the loss of a batch that both have seen: it goes on falling, and did not begin anew
    assert (m.training.losses[0] or 0) < max(before["losses"][-8:])
    assert (m.training.losses[0] or 0) < before["losses"][0] - 0.1


@pytest.fixture
def disk_of_one_state(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one state of the tiny model, and not for two."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@needs_root
@pytest.mark.slow
def test_a_full_disk_leaves_the_state_before_and_the_run_goes_on(bench: Bench, disk_of_one_state: Path) -> None:
    done = bench("run", *SAVED, "measure.steps=80", "device.n_devices=1", f"out={disk_of_one_state}/kept")
    assert done.returncode == 0, done.stderr
    result = read_result(disk_of_one_state / "kept")
    log = result.measurement.training
    assert log is not None
    assert [write.step for write in log.writes] == [EVERY]
    assert len(log.not_kept) >= 2
    assert "the state after step 50 was not kept" in next(w.text for w in result.warnings if w.kind is WarningKind.CHECKPOINT)
    states = disk_of_one_state / "kept" / "checkpoints"
    assert sorted(path.name for path in states.iterdir()) == [LATEST, f"step-{EVERY}"]
    assert (states / LATEST).read_text() == f"step-{EVERY}"
    assert shard(states / f"step-{EVERY}").stat().st_size > 10**6
