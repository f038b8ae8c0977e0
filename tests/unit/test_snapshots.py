"""What was measured is kept now and then, and once measuring is over; a stalled machine changes nothing of the training."""

import pytest

from bench.facts.measurement import Measurement
from bench.facts.progress import unheard
from bench.run import windows
from bench.run.measure import Extras, measure_steps
from bench.run.preempt import Guard
from tests.faults.test_checkpoint import CPU
from tests.unit.test_saving import spec


def measured() -> tuple[Measurement, list[Measurement]]:
    kept: list[Measurement] = []
    guard = Guard(before_leaving=lambda _: None)
    m = measure_steps(spec(every=None, steps=3), CPU, "here", progress=unheard, guard=guard, keep=kept.append, extras=Extras())
    assert m.steps_per_window == (3,)
    return m, kept


def test_a_stall_in_the_last_window_is_no_step_more(monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed, _ = measured()
    monkeypatch.setattr(windows, "SNAPSHOT_S", 1e-6)
    monkeypatch.setattr(windows, "SNAPSHOT_STEPS", 0)
    stalled, _ = measured()
    assert stalled.loss_first == undisturbed.loss_first
    assert stalled.loss_last == undisturbed.loss_last


def test_all_that_was_measured_is_kept_before_anything_else_is_looked_at() -> None:
    m, kept = measured()
    assert [k.n_steps for k in kept] == [3]
    assert kept[0].tokens_per_s == m.tokens_per_s
    assert kept[0].loss_last == m.loss_last
