"""Trackers and the event log: what a finished run tells others."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.facts.measurement import MeasurementWarning, WarningKind
from bench.facts.result import Result
from bench.report.event_log import event_log
from bench.run import trackers
from bench.run.trackers import summary, track
from tests.kept_runs import launch_of, result_of


class Heard:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, int | None]] = []

    def start(self) -> None:
        self.calls.append(("start", None, None))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.calls.append(("configuration", values, None))

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.calls.append(("log", values, step))

    def finish(self) -> None:
        self.calls.append(("finish", None, None))


def run_of(*launches: list[float]) -> Result:
    return result_of(*map(launch_of, launches))


def told(result: Result, tmp_path: Path) -> Heard:
    heard = Heard()
    assert track(result, ["tensorboard"], tmp_path, lambda *_: heard) == []
    return heard


def test_step_times_are_a_series_and_the_summary_follows(tmp_path: Path) -> None:
    calls = told(run_of([1.0, 2.0, 3.0]), tmp_path).calls
    assert [kind for kind, _, _ in calls] == ["start", "configuration", "log", "log", "log", "log", "finish"]
    assert [(values, step) for kind, values, step in calls if kind == "log"][:3] == [
        ({"step_s": 1.0}, 0),
        ({"step_s": 2.0}, 1),
        ({"step_s": 3.0}, 2),
    ]
    # 3 steps of 1,024 tokens in 6 s
    assert calls[-2][1]["tokens_per_s"] == pytest.approx(512)


def test_each_launch_has_a_series_of_its_own(tmp_path: Path) -> None:
    logged = [values for kind, values, _ in told(run_of([1.0, 2.0], [3.0, 4.0, 5.0]), tmp_path).calls if kind == "log"]
    assert logged[0] == {"step_s/launch0": 1.0, "step_s/launch1": 3.0}
    assert logged[2] == {"step_s/launch1": 5.0}


def test_the_configuration_is_flat_as_on_the_command_line(tmp_path: Path) -> None:
    values = told(run_of([1.0, 2.0]), tmp_path).calls[1][1]
    assert values["train.seed"] == 0
    assert values["model.name"] == "tiny"
    assert all(isinstance(value, bool | int | float | str) for value in values.values())


def failing(error: BaseException) -> Callable[..., Heard]:
    def make(*_: object) -> Heard:
        raise error

    return make


@pytest.mark.parametrize("error", [RuntimeError("no network\nmore"), SystemExit("no key"), ModuleNotFoundError("not installed")])
def test_a_tracker_that_fails_is_a_warning_and_the_others_are_still_told(tmp_path: Path, error: BaseException) -> None:
    heard = Heard()

    def make(name: str, folder: Path) -> Heard:
        return heard if name == "mlflow" else failing(error)(name, folder)

    found = track(run_of([1.0, 2.0]), ["wandb", "mlflow"], tmp_path, make)
    assert [w.kind for w in found] == [WarningKind.TRACKER]
    assert found[0].text == f"wandb was not told of this run: {str(error).splitlines()[0]}"
    assert heard.calls[-1][0] == "finish"


def test_a_tracker_that_does_not_answer_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Heard):
        def start(self) -> None:
            time.sleep(0.5)

    monkeypatch.setattr(trackers, "DEADLINE_S", 0.05)
    found = track(run_of([1.0, 2.0]), ["wandb"], tmp_path, lambda *_: Silent())
    assert "no answer within 0.05 s" in found[0].text


def test_a_package_that_is_not_installed_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "get_available_trackers", list)
    found = track(run_of([1.0, 2.0]), ["trackio"], tmp_path)
    assert "pip install trackio" in found[0].text


def test_what_is_not_known_is_left_out_of_the_summary() -> None:
    figures = summary(run_of([1.0, 2.0]))
    assert "mfu_causal_fraction" not in figures
    assert "power_w" not in figures
    assert figures["step_s_median"] == 1.5


def lines_of(result: Result) -> list[dict[str, Any]]:
    lines = event_log(result).splitlines()
    assert all(line.startswith(":::MLLOG ") for line in lines)
    return [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]


def test_the_event_log_has_a_block_for_every_window() -> None:
    m = launch_of([1.0, 2.0, 3.0])
    two = replace(m, steps_per_window=(1, 2), ranks=(replace(m.ranks[0], window_s=(1.0, 5.0)),))
    lines = lines_of(result_of(two))
    keys = [line["key"] for line in lines]
    assert [k for k in keys if k.startswith(("init", "run", "block"))] == [
        *("init_start", "init_stop", "run_start", "block_start", "block_stop", "block_start", "block_stop", "run_stop")
    ]
    # windows of 1 and 2 steps of 1,024 tokens in 1 and 5 s
    assert [line["value"]["throughput"] for line in lines if line["key"] == "tracked_stats"] == [1024, 409.6]
    at_ms = {key: [line["time_ms"] for line in lines if line["key"] == key] for key in ("init_stop", "run_stop")}
    assert at_ms["run_stop"][0] - at_ms["init_stop"][0] == 6000
    assert [line["time_ms"] for line in lines] == sorted(line["time_ms"] for line in lines)


def test_the_event_log_says_whether_the_run_was_whole() -> None:
    whole = run_of([1.0, 2.0])
    broken = replace(whole, measurement=replace(whole.measurement, invalid=("nothing was learnt",)))
    assert [next(line for line in lines_of(r) if line["key"] == "run_stop")["metadata"]["status"] for r in (whole, broken)] == [
        "success",
        "aborted",
    ]


def test_every_line_has_the_fields_of_the_format() -> None:
    for line in lines_of(run_of([1.0, 2.0])):
        assert set(line) == {"namespace", "time_ms", "event_type", "key", "value", "metadata"}
        assert {"file", "lineno"} <= set(line["metadata"])
        assert line["event_type"] in ("POINT_IN_TIME", "INTERVAL_START", "INTERVAL_END")


def test_a_warning_of_a_tracker_is_typed() -> None:
    assert MeasurementWarning(kind=WarningKind("tracker"), text="x").kind is WarningKind.TRACKER
