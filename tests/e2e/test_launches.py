"""Several launches of one configuration, through the command line and as a library."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench import api
from bench.store.results import read_result
from tests.conftest import SMALL, Bench

SHORT = (*SMALL, "measure.breakdown_steps=0", "measure.warmup_min_steps=2", "measure.warmup_max_steps=2")


def test_launches_are_kept_apart_and_told_together(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", *SHORT, "measure.steps=8", "measure.launches=2", "out=kept")
    assert done.returncode == 0, done.stderr
    result = read_result(tmp_path / "kept")
    whole, each = result.measurement, result.launches
    assert len(each) == 2
    assert whole.tokens_per_s.value == pytest.approx(np.mean([m.tokens_per_s.value for m in each]))
    assert all(whole.tokens_per_s.low <= m.tokens_per_s.value <= whole.tokens_per_s.high for m in each)
    assert whole.spread is not None
    assert (whole.spread.n_launches, whole.tokens_per_s.n_steps) == (2, 16)
    lines = [json.loads(line) for line in (tmp_path / "kept" / "steps.jsonl").read_text().splitlines()]
    timed = [(line["launch"], line["rank"]) for line in lines if line["phase"] == "timed"]
    assert {key: timed.count(key) for key in timed} == {(0, 0): 8, (0, 1): 8, (1, 0): 8, (1, 1): 8}
    assert {path.name for path in (tmp_path / "kept" / "log").iterdir()} == {"launch0", "launch1"}
    assert "between 2 launches" in done.stdout


@pytest.mark.slow
def test_configurations_are_launched_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    configurations = [(*SHORT, "device.n_devices=1", "measure.steps=2", "measure.launches=2", f"out={name}") for name in ("a", "b")]
    results = api.run_in_turn(*configurations)
    assert [Path(r.run_dir).name for r in results] == ["a", "b"]
    written = [
        (name, k, (tmp_path / name / "log" / f"launch{k}" / "log" / "rank0.log").stat().st_ctime_ns) for name in "ab" for k in (0, 1)
    ]
    assert [(name, k) for name, k, _ in sorted(written, key=lambda row: row[2])] == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]


@pytest.mark.slow
def test_one_launch_says_that_others_were_not_measured(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", *SHORT, "measure.steps=2", "device.n_devices=1", "measure.trace=true", "out=kept")
    assert done.returncode == 0, done.stderr
    assert "how far launches differ was not measured" in done.stdout
    result = read_result(tmp_path / "kept")
    assert result.launches == ()
    assert result.measurement.spread is not None
    assert result.measurement.spread.between_launch_fraction is None
    assert json.loads((tmp_path / "kept" / "trace-rank0.json").read_text())["traceEvents"]


def test_launches_are_refused_where_somebody_else_starts_the_ranks(bench: Bench) -> None:
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    done = bench("run", *SHORT, "measure.launches=3", env=place)
    assert done.returncode == 2
    assert "measure.launches: 3 given" in done.stderr
