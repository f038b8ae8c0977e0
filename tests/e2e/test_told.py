"""A run that tells others: the tracker that cannot be reached costs a warning, not the run."""

from pathlib import Path

import pytest

from bench.cli import main
from bench.store.results import read_result
from tests.conftest import SMALL, Bench


@pytest.mark.slow
def test_a_run_with_an_absent_tracker_succeeds_with_a_warning_and_writes_its_event_log(bench: Bench, tmp_path: Path) -> None:
    brief = (
        "measure.steps=5",
        "measure.breakdown_steps=0",
        "measure.warmup_min_steps=2",
        "measure.warmup_max_steps=2",
        "device.n_devices=1",
    )
    done = bench("run", *SMALL, *brief, "trackers=[trackio]", "event_log=true", "out=kept", "--quiet")
    assert done.returncode == 0, done.stderr
    assert [w.kind for w in read_result(tmp_path / "kept").warnings if w.kind == "tracker"] == ["tracker"]
    assert (tmp_path / "kept" / "mlperf.log").read_text().startswith(":::MLLOG ")
    assert "measuring" not in done.stderr


def test_an_unknown_tracker_is_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *SMALL, "trackers=[tensorbord]"]) == 2
    assert "tensorboard" in capsys.readouterr().err
