"""A state is saved between two windows, in the time of none; where none is asked for, nothing is done at all."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import BenchError
from bench.facts.checkpoint import CheckpointRead, CheckpointWrite, TrainingLog
from bench.facts.measurement import Measurement, WarningKind
from bench.facts.progress import unheard
from bench.facts.run import RunSpec
from bench.run import checkpoint
from bench.run.clock import StepClock
from bench.run.measure import Extras, measure_steps
from bench.run.preempt import Guard
from bench.run.saving import Saver, training_warnings
from bench.run.train import Trainer
from tests.faults.test_checkpoint import CPU, spec_of


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spec(every: int | None, steps: int = 30) -> RunSpec:
    plain = spec_of()
    measure = replace(plain.measure, steps=steps, min_steps=2, warmup_min_steps=2, warmup_max_steps=2, breakdown_steps=0)
    return replace(plain, measure=measure, train=replace(plain.train, checkpoint_every_steps=every))


def measured(given: RunSpec, folder: Path) -> Measurement:
    guard = Guard(before_leaving=lambda _: None)
    return measure_steps(given, CPU, "here", progress=unheard, guard=guard, keep=lambda _: None, extras=Extras(states=folder))


def test_a_window_never_contains_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def noted_save(_: Trainer, folder: Path, step: int) -> CheckpointWrite:
        assert begun[-1] == "stop"
        return CheckpointWrite(step=step, path=str(folder), time_s=1.0, size_bytes=1)

    for name in ("start", "stop"):
        monkeypatch.setattr(StepClock, name, _noted(getattr(StepClock, name), name, begun))
    monkeypatch.setattr(checkpoint, "save", noted_save)
    m = measured(spec(every=10), tmp_path)
    assert m.training is not None
    assert [write.step for write in m.training.writes] == [10, 20, 30]
    # one step is looked at, two warm up
    edges = [3 + sum(m.steps_per_window[: i + 1]) for i in range(len(m.steps_per_window))]
    assert {10, 20, 30} < set(edges)
    assert len(m.training.losses) == 1 + 2 + 30 + 1
    assert (m.loss_first, m.loss_last) == (m.training.losses[0], m.training.losses[-1])


def _noted(act: Any, name: str, begun: list[str]) -> Any:
    def noted(*arguments: Any) -> Any:
        begun.append(name)
        return act(*arguments)

    return noted


def test_nothing_is_saved_or_kept_where_nothing_is_asked_for(tmp_path: Path) -> None:
    m = measured(spec(every=None), tmp_path / "states")
    assert m.training is None
    assert sum(m.steps_per_window) == 30
    assert not (tmp_path / "states").exists()
    trainer = Trainer(spec(every=None), CPU)
    assert Saver(trainer, tmp_path / "states").cut(1000) == 1000
    trainer.step()
    assert trainer.take_losses() == []


def test_a_second_run_goes_on_where_the_first_one_saved(tmp_path: Path) -> None:
    whole = measured(spec(every=10, steps=60), tmp_path / "whole")
    first = measured(spec(every=10), tmp_path / "pieces")
    second = measured(spec(every=10), tmp_path / "pieces")
    assert whole.training is not None
    assert first.training is not None
    assert second.training is not None
    assert (second.training.first_step, second.training.read and second.training.read.step) == (31, 30)
    assert first.training.losses[:30] + second.training.losses[:30] == whole.training.losses[:60]
    assert [write.step for write in second.training.writes] == [40, 50, 60]


def test_a_state_that_cannot_be_kept_is_told_of_and_measuring_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise BenchError("checkpoint: no room")

    monkeypatch.setattr(checkpoint, "save", full)
    m = measured(spec(every=10), tmp_path)
    assert m.training is not None
    assert m.training.not_kept == ("checkpoint: no room",) * 3
    assert m.n_steps == 30
    assert [w.text for w in m.warnings if w.kind is WarningKind.CHECKPOINT] == ["checkpoint: no room"] * 3


def test_a_last_save_is_left_out_where_the_grace_is_too_short_for_it(tmp_path: Path) -> None:
    trainer = Trainer(spec(every=1), CPU)
    saver = Saver(trainer, tmp_path)
    saver.begin()
    trainer.step()
    saver.save_if_due()
    assert saver.save_at_last(left_s=1e-9) is False
    assert saver.save_at_last(left_s=60) is True
    log = saver.told()
    assert log is not None
    assert len(log.writes) == 2
    assert "the state after step 1 was not saved at the end" in log.not_kept[0]


def test_what_is_gone_on_with_otherwise_is_a_warning(tmp_path: Path) -> None:
    read = CheckpointRead(step=7, path=str(tmp_path), time_s=0.1, passed_over=("step-9 is torn: why",), changed=("with a 1, saved with 2",))
    log = TrainingLog(every_steps=1, read=read, writes=(), not_kept=("no room",), losses=())
    assert [w.text for w in training_warnings(log)] == [
        "checkpoint: step-9 is torn: why",
        "goes on from step 7 with a 1, saved with 2",
        "no room",
    ]
    assert training_warnings(None) == ()
