"""What could spoil a number is said; what is no training is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bench import stats
from bench.facts.measurement import WarmupEnd, WarningKind
from bench.facts.run import MeasurePolicy
from bench.run.record import Health, Record, find_faults, find_warnings

POLICY = MeasurePolicy(
    steps=None,
    target_ci=0.02,
    confidence=0.95,
    budget_s=60,
    min_steps=20,
    warmup_min_steps=6,
    warmup_max_steps=60,
    warmup_tolerance=0.03,
)
HEALTHY = Health(loss=6.9, grad_norm=1.0, parameter_sums=(1.0, 2.0))
TRAINED = Health(loss=5.0, grad_norm=0.5, parameter_sums=(1.1, 2.1))
QUIET = [1 + 0.001 * math.sin(7 * i) for i in range(60)]


def record(steps: list[float] = QUIET, after: Health = TRAINED, end: WarmupEnd = WarmupEnd.STEADY, foreign: float = 0.0) -> Record:
    seen = Record(before=HEALTHY, warmup_end=end, warmup_s=[2.0, 1.0], world_step_s=steps, foreign_load=foreign)
    seen.after = after
    return seen


def kinds(seen: Record) -> set[WarningKind]:
    return {w.kind for w in find_warnings(POLICY, seen, stats.throughput(seen.world_step_s, 1.0, 0.95))}


def test_a_quiet_run_of_a_healthy_model_has_nothing_to_be_said_against_it() -> None:
    assert kinds(record()) == set()
    assert find_faults(record()) == ()


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (replace(TRAINED, loss=math.nan), "not finite"),
        (replace(TRAINED, grad_norm=0.0), "gradient norm is 0"),
        (replace(TRAINED, grad_norm=math.inf), "not finite"),
        (replace(TRAINED, parameter_sums=HEALTHY.parameter_sums), "no parameter has changed"),
    ],
)
def test_what_is_no_training_is_a_fault(after: Health, words: str) -> None:
    faults = find_faults(record(after=after))
    assert len(faults) == 1
    assert words in faults[0]


NOISY = list(1 + 0.2 * np.random.default_rng(1).standard_normal(20))


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (record(NOISY), WarningKind.WIDE_INTERVAL),
        (record(end=WarmupEnd.CAP), WarningKind.WARMUP_CAPPED),
        (record(QUIET[:10]), WarningKind.FEW_STEPS),
        (record([*QUIET, 3.0]), WarningKind.SKEWED_STEPS),
        (record([*QUIET, 3.0]), WarningKind.OUTLIERS),
        (record([s + i / 500 for i, s in enumerate(QUIET)]), WarningKind.TREND),
        (record(foreign=0.4), WarningKind.BUSY_MACHINE),
        (record(after=replace(TRAINED, parameter_sums=(1.0, 2.1))), WarningKind.UNCHANGED_PARAMETERS),
    ],
)
def test_what_could_spoil_a_number_is_warned_of(seen: Record, kind: WarningKind) -> None:
    assert kind in kinds(seen)
