"""Several launches as one measurement."""

from dataclasses import replace

import pytest

from bench.facts.measurement import Estimate, Measurement, MeasurementWarning, WarningKind
from bench.facts.run import MeasurePolicy
from bench.run.launches import pooled, scaled
from tests.round_numbers import measurement


def launch(tokens_per_s: float, *warnings: WarningKind, invalid: tuple[str, ...] = ()) -> Measurement:
    estimate = Estimate(value=tokens_per_s, low=0.99 * tokens_per_s, high=1.01 * tokens_per_s, confidence=0.95, n_steps=100, block_length=1)
    told = tuple(MeasurementWarning(kind=kind, text="this") for kind in warnings)
    return replace(measurement(tokens_per_s), tokens_per_s=estimate, warnings=told, invalid=invalid)


def test_one_launch_stays_as_it_is() -> None:
    alone = launch(100.0)
    assert pooled([alone], 0.02) is alone


def test_the_mean_launch_has_an_interval_that_holds_the_launches_spread() -> None:
    whole = pooled([launch(100.0), launch(104.0), launch(108.0)], 0.02)
    # mean 104, standard deviation 4, t of 2 degrees of freedom 4.303: 4.303 * 4 / sqrt(3) = 9.94
    assert whole.tokens_per_s.value == pytest.approx(104)
    assert whole.tokens_per_s.high - 104 == pytest.approx(9.94, abs=0.01)
    assert whole.tokens_per_s.n_steps == 300
    assert whole.spread is not None
    assert whole.spread.between_launch_fraction == pytest.approx(4 / 104, rel=0.02)


def test_equal_launches_are_as_uncertain_as_their_steps() -> None:
    whole = pooled([launch(100.0)] * 4, 0.02)
    # four independent intervals of +-1: 1 / sqrt(4)
    assert whole.tokens_per_s.high - 100 == pytest.approx(0.5)


def test_warnings_say_which_launch_and_width_is_asked_of_the_whole() -> None:
    whole = pooled([launch(100.0, WarningKind.WIDE_INTERVAL, WarningKind.TREND), launch(101.0, WarningKind.BUSY_MACHINE)], 0.2)
    assert [(w.kind, w.text) for w in whole.warnings] == [
        (WarningKind.TREND, "launch 0: this"),
        (WarningKind.BUSY_MACHINE, "launch 1: this"),
    ]
    assert WarningKind.WIDE_INTERVAL in {w.kind for w in pooled([launch(100.0), launch(110.0)], 0.02).warnings}


def test_one_invalid_launch_makes_the_whole_invalid() -> None:
    assert pooled([launch(100.0), launch(101.0, invalid=("no",))], 0.02).invalid == ("launch 1: no",)


def test_what_is_left_of_a_number_of_steps_is_exact() -> None:
    policy = MeasurePolicy(
        steps=400, target_ci=0.01, confidence=0.95, budget_s=60, min_steps=20, warmup_min_steps=2, warmup_max_steps=2, warmup_tolerance=0.1
    )
    assert [scaled(policy, 1 - n / 400).steps for n in range(1, 400)] == [max(20, 400 - n) for n in range(1, 400)]
