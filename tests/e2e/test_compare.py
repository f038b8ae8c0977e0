"""Comparing and repeating a real run, through the command line."""

import subprocess
from pathlib import Path

from bench.store.results import read_result
from tests.conftest import run_bench

Done = tuple[subprocess.CompletedProcess[str], Path]


def test_a_run_compared_with_itself_cannot_be_told_apart(small_run: Done) -> None:
    done = run_bench("compare", "kept", "kept", cwd=small_run[1].parent)
    assert done.returncode == 0, done.stderr
    assert "cannot tell" in done.stdout
    assert "Nothing known differed" in done.stdout


def test_a_rerun_repeats_the_resolved_configuration_and_compares(small_run: Done) -> None:
    done = run_bench("rerun", "kept", "out=again", cwd=small_run[1].parent)
    assert done.returncode == 0, done.stderr
    assert "Compared: tokens/s against kept" in done.stdout
    before, after = (read_result(small_run[1].parent / name) for name in ("kept", "again"))
    assert {**before.config, "out": ""} == {**after.config, "out": ""}
    assert after.measurement.n_steps == before.measurement.n_steps == 60


def test_a_rerun_takes_no_other_override(small_run: Done) -> None:
    done = run_bench("rerun", "kept", "measure.steps=5", cwd=small_run[1].parent)
    assert done.returncode == 2
    assert "measure.steps=5" in done.stderr
