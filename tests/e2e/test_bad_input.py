"""Bad input: exit 2, one line, no traceback, nothing left behind."""

from pathlib import Path

import pytest

from bench.cli import main
from tests.conftest import Bench


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
        (
            ["run", "model=tiny", "device=cpu", "device.n_devices=2", "plan=tp", "plan.tensor_parallel_size=2", "train.compile=true"],
            ["train.compile", "plan.tensor_parallel_size 2", "use false"],
        ),
        (["run", "model=tiny", "device=cuda"], ["cuda", "use cpu"]),
        (["run", "tiny"], ["'tiny'", "key=value"]),
        (["run", "model=tiny,dense_5m"], ["several values"]),
        (["run", "train.precision=int3"], ["train.precision", "int3"]),
        (["runn"], ["runn", "did you mean 'run'"]),
        (["run", "--nope"], ["--nope"]),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    in_folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0]
    assert not list(in_folder.glob("runs/*/*/result.json"))


@pytest.mark.parametrize("arguments", [["runn"], ["run", "measure.stepz=3"], ["run", "model=tiny", "device=cuda"]])
def test_the_shell_sees_the_same(bench: Bench, arguments: list[str]) -> None:
    """The exit code of the process itself, and no traceback of anything that ends with it."""
    done = bench(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_help_lists_verbs_and_groups(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    for word in ("run", "model", "target", "device", "cluster", "plan", "measure", "price", "experiment", "grok1_314b", "tiny"):
        assert word in shown


def test_cfg_prints_the_composed_configuration_and_runs_nothing(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--cfg", "model=tiny", "measure.steps=7"]) == 0
    assert "steps: 7" in capsys.readouterr().out
    assert list(in_folder.iterdir()) == []
