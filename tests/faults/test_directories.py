"""Directories that fill up, vanish, are torn, in use, or were begun by somebody else."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bench.facts.attempt import RunState
from bench.store.attempts import read_status
from bench.store.results import read_result
from tests.conftest import Bench
from tests.faults.conftest import QUICK, Start

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT or sys.platform != "linux", reason="mounting a small disk needs root on Linux")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(ballast: Path) -> None:
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


def last_line(told: str) -> str:
    return told.strip().splitlines()[-1]


@needs_root
@pytest.mark.slow
def test_a_full_disk_is_told_with_what_was_measured(start: Start, small_disk: Path) -> None:
    running = start("run", *QUICK, "measure.steps=60", f"out={small_disk}/kept")
    running.wait_for("measuring: ")
    fill(small_disk / "ballast")
    assert running.end() == 1, running.told
    assert "No space left on device" in last_line(running.told)
    assert "measured: " in last_line(running.told)
    assert "Traceback" not in running.told
    assert not list((small_disk / "kept").glob(".*.tmp"))
    (small_disk / "ballast").unlink()
    assert start("run", *QUICK, "measure.steps=60", f"out={small_disk}/kept").end() == 0
    read_result(small_disk / "kept")


@pytest.mark.slow
def test_a_directory_that_is_removed_meanwhile_is_made_again(start: Start, tmp_path: Path) -> None:
    running = start("run", *QUICK, "measure.steps=100", "out=kept")
    running.wait_for("measuring: ")
    shutil.rmtree(tmp_path / "kept")
    assert running.end() == 0, running.told
    read_result(tmp_path / "kept")


@pytest.mark.slow
def test_a_directory_in_use_is_refused_and_left_alone(start: Start) -> None:
    asked = ("run", *QUICK, "measure.steps=100000", "out=kept")
    first = start(*asked)
    first.wait_for("survey")
    second = start(*asked)
    assert second.end() == 2
    assert f"out: kept is in use by process {first.process.pid} on " in last_line(second.told)
    assert first.process.poll() is None
    assert first.stop()[0] == 75, first.told


@pytest.mark.slow
def test_torn_files_of_an_earlier_attempt_are_put_aside(start: Start, tmp_path: Path) -> None:
    running = start("run", *QUICK, "measure.steps=150", "out=kept")
    running.wait_for("measuring: ")
    assert running.stop()[0] == 75
    kept = tmp_path / "kept"
    for name in ("measured.json", "status.json", "partial.json"):
        whole = (kept / name).read_bytes()
        (kept / name).write_bytes(whole[: len(whole) // 2])
    again = start("run", *QUICK, "measure.steps=150", "out=kept")
    assert again.end() == 0, again.told
    assert read_result(kept).launches == ()  # the torn half counts for nothing
    assert (kept / "measured.json.torn").exists()


def test_a_torn_result_is_one_line(bench: Bench, tmp_path: Path, small_run: tuple[object, Path]) -> None:
    torn = tmp_path / "result.json"
    torn.write_bytes((small_run[1] / "result.json").read_bytes()[:5000])
    done = bench("predict", f"result={torn}")
    assert done.returncode == 2
    assert "not JSON" in last_line(done.stderr)
    assert "Traceback" not in done.stderr


def test_another_configuration_in_the_same_directory_is_refused(start: Start, bench: Bench) -> None:
    running = start("run", *QUICK, "measure.steps=150", "out=kept")
    running.wait_for("survey")
    assert running.stop()[0] == 75
    done = bench("run", *QUICK, "measure.steps=151", "out=kept")
    assert done.returncode == 2
    assert "out: kept was begun with measure.steps=150, now 151" in done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.slow
def test_fewer_devices_after_a_restart_are_measured_anew(start: Start, tmp_path: Path) -> None:
    steps = ("measure.steps=150", "out=kept")
    running = start("run", *QUICK, *steps)
    running.wait_for("measuring: ")
    assert running.stop()[0] == 75
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        again = start("run", *QUICK, *steps)
        assert again.end() == 0, again.told
    finally:
        os.sched_setaffinity(0, cores)
    assert "launch 0 ran on 2 devices, here are 1: it is put aside" in again.told
    result = read_result(tmp_path / "kept")
    assert (result.measurement.world_size, result.launches) == (1, ())
    assert (tmp_path / "kept" / "measured-elsewhere.json").exists()


@pytest.mark.slow
def test_a_launch_on_another_kind_of_machine_is_not_pooled(start: Start, tmp_path: Path) -> None:
    steps = ("measure.steps=400", "out=kept")
    running = start("run", *QUICK, *steps)
    running.wait_for("measuring: ")
    assert running.stop()[0] == 75
    file = tmp_path / "kept" / "measured.json"
    elsewhere = json.loads(file.read_text())
    elsewhere["environment"] |= {"cpu": "another processor", "started_at": "2026-01-01T00:00:00+00:00"}
    file.write_text(json.dumps(elsewhere))
    again = start("run", *QUICK, *steps)
    assert again.end() == 0, again.told
    assert "ran on another kind of machine" in again.told
    result = read_result(tmp_path / "kept")
    assert result.environment.cpu != "another processor"
    assert sum(m.n_steps for m in result.launches or (result.measurement,)) >= 400


def test_no_device_is_one_line(bench: Bench) -> None:
    done = bench("run", "model=tiny", "device=cuda", env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 2
    assert "device.backend: cuda given" in done.stderr


@pytest.mark.slow
def test_ranks_of_a_killed_launcher_are_waited_for(start: Start, tmp_path: Path) -> None:
    """The kernel tells the ranks; the next attempt begins when they are gone, so that they neither write nor compute beside it."""
    running = start("run", *QUICK, "measure.steps=300", "out=kept")
    running.wait_for("measuring: ")
    ranks = running.ranks
    for rank in ranks:
        rank.suspend()
    running.process.kill()
    again = start("run", *QUICK, "measure.steps=300", "out=kept")
    time.sleep(6)
    assert again.process.poll() is None
    assert "survey" not in again.told
    for rank in ranks:
        rank.resume()
    assert again.end() == 0, again.told
    status = read_status(tmp_path / "kept")
    assert status is not None
    assert (status.state, status.n_attempts) == (RunState.FINISHED, 2)


@pytest.mark.slow
def test_a_sweep_whose_folder_is_gone_ends(start: Start, tmp_path: Path) -> None:
    """Its working directory with it: nothing can be written any more, and going on would go on for ever."""
    folder = tmp_path / "gone"
    folder.mkdir()
    running = start("sweep", *QUICK, "device.n_devices=1", "measure.steps=300", "train.seed=0,1", "out=gone/swept")
    running.wait_for("measuring: ")
    shutil.rmtree(folder)
    folder.write_text("a file in its place")
    assert running.end() == 1, running.told
    assert "Traceback" not in running.told
