"""Bad input: exit 2, one line, no traceback, nothing left behind."""

from pathlib import Path

import pytest

from tests.conftest import Bench


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "measure.stepz=3"], ["measure.stepz", "measure.steps"]),
        (["run", "+measure.extra=3"], ["measure.extra", "unknown key"]),
        (["run", "modle=tiny"], ["modle", "model"]),
        (["run", "model=tinny"], ["tinny", "did you mean 'tiny'"]),
        (["run", "cluster=oracle_24k_h10"], ["did you mean 'oracle_24k_h100'"]),
        (["run", "model=tiny", "model.d_model=512", "model.n_heads=7"], ["n_heads", "7", "512", "4 or 8"]),
        (["run", "model=tiny", "measure.steps=-5"], ["measure", "-5", "at least 2"]),
        (["run", "model=tiny", "measure.steps=many"], ["measure.steps", "many"]),
        (["run", "model=tiny", "measure.steps=2.5"], ["measure.steps", "2.5"]),
        (["run", "model=tiny", "out=/dev/null/here"], ["/dev/null/here", "cannot be written"]),
        (["run", "model=tiny", "device=cpu", "plan.tensor_parallel_size=3"], ["3", "does not divide", "2 devices"]),
        (
            ["run", "model=tiny", "device=cpu", "train.micro_batch_size=8", "train.global_batch_size=20"],
            ["global_batch_size 20", "16", "use 16 or 32"],
        ),
        (["run", "model=tiny", "device=cpu", "plan.data_parallel_size=5"], ["data_parallel_size", "5", "2 devices"]),
        (["run", "model=tiny", "device=cuda"], ["cuda", "use cpu"]),
        (["run", "tiny"], ["'tiny'", "key=value"]),
        (["run", "model=tiny,dense_5m"], ["several values"]),
        (["run", "train.precision=int3"], ["train.precision", "int3"]),
        (["runn"], ["runn", "did you mean 'run'"]),
        (["run", "--nope"], ["--nope"]),
    ],
)
def test_bad_input_is_one_line_and_exit_2(bench: Bench, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = bench(*arguments)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]
    assert not list(tmp_path.glob("runs/*/*/result.json"))


def test_help_lists_verbs_and_groups(bench: Bench) -> None:
    shown = bench("--help").stdout
    for word in ("run", "model", "target", "device", "cluster", "plan", "measure", "price", "experiment", "grok1_314b", "tiny"):
        assert word in shown


def test_cfg_prints_the_composed_configuration_and_runs_nothing(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", "--cfg", "model=tiny", "measure.steps=7")
    assert done.returncode == 0, done.stderr
    assert "steps: 7" in done.stdout
    assert list(tmp_path.iterdir()) == []
