"""Verdicts on pairs of runs whose true difference is known."""

import math

import numpy as np
import pytest

from bench.contrast import contrast
from bench.facts.comparison import Contrast, Verdict
from bench.facts.figure import Figure, Provenance
from bench.facts.measurement import Estimate
from bench.facts.result import Result
from tests.kept_runs import launch_of, result_of, steps_of

ASSUMED = Figure(value=0.005, provenance=Provenance.ASSUMED, source="round number")
BETWEEN_LAUNCHES = 0.005
N_PAIRS = 200
# A default run as the README has it: 30 steps, 0.27 % of standard error. 0.011 sqrt((1 + 0.3) / (1 - 0.3) / 30) = 0.27 %
N_STEPS = 30


def launch(value: float, half: float = 0.0) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, confidence=0.95, n_steps=1000, block_length=1)


def made_up(rng: np.random.Generator, tokens_per_s: float, n_launches: int) -> Result:
    """A run whose launches differ by half a per cent, with the noise of steps on top."""
    speeds = tokens_per_s * (1 + BETWEEN_LAUNCHES * rng.standard_normal(n_launches))
    return result_of(*(launch_of(steps_of(rng, speed, N_STEPS)) for speed in speeds))


def verdict(first: Result, second: Result) -> Verdict:
    sides = [tuple(m.tokens_per_s for m in r.launches or (r.measurement,)) for r in (first, second)]
    return contrast(*sides, ASSUMED).verdict


@pytest.mark.parametrize("n_launches", [1, 3])
def test_of_200_pairs_of_equal_runs_at_most_5_percent_are_called_different(n_launches: int) -> None:
    rng = np.random.default_rng(21)
    told = [verdict(made_up(rng, 1000, n_launches), made_up(rng, 1000, n_launches)) for _ in range(N_PAIRS)]
    assert np.mean([v is not Verdict.CANNOT_TELL for v in told]) <= 0.05


@pytest.mark.parametrize("n_launches", [1, 3])
def test_of_200_pairs_that_differ_by_3_percent_at_least_90_percent_are_found(n_launches: int) -> None:
    rng = np.random.default_rng(22)
    slower = [verdict(made_up(rng, 1000, n_launches), made_up(rng, 970, n_launches)) for _ in range(N_PAIRS // 2)]
    faster = [verdict(made_up(rng, 1000, n_launches), made_up(rng, 1030, n_launches)) for _ in range(N_PAIRS // 2)]
    found = [v is Verdict.SLOWER for v in slower] + [v is Verdict.FASTER for v in faster]
    assert np.mean(found) >= 0.9


def test_two_single_launches_without_noise_differ_by_the_assumed_spread_alone() -> None:
    c = contrast([launch(100)], [launch(100)], ASSUMED)
    # sqrt(2) * 0.005 with ten degrees of freedom: 2.228 * 0.00707 = 0.01575 in logarithms
    assert c.noise_floor_fraction == pytest.approx(math.expm1(0.01575), rel=1e-3)
    assert c.between_launch == ASSUMED


def test_several_launches_are_compared_by_welchs_t() -> None:
    # logarithms 0, 0.01, 0.02 and the same + 0.1: variances 1e-4, standard error sqrt(2e-4 / 3) = 0.008165, 4 degrees: t = 2.776
    first = [launch(math.exp(x)) for x in (0, 0.01, 0.02)]
    second = [launch(math.exp(x)) for x in (0.1, 0.11, 0.12)]
    c = contrast(first, second, ASSUMED)
    assert math.log1p(c.change_fraction) == pytest.approx(0.1)
    assert math.log1p(c.noise_floor_fraction) == pytest.approx(2.776 * 0.008165, rel=1e-3)
    assert (c.between_launch.provenance, c.between_launch.value) == (Provenance.MEASURED, pytest.approx(0.01))
    assert c.n_launches == (3, 3)


def test_a_single_launch_borrows_the_spread_that_the_other_run_measured() -> None:
    first = [launch(math.exp(x)) for x in (0, 0.01, 0.02)]
    c = contrast(first, [launch(math.exp(0.01))], ASSUMED)
    # 1e-4 / 3 of the mean of three and 1e-4 of the single one, both told by 2 degrees:
    # freedom (4/3)^2 / ((1/9 + 1) / 2) = 3.2, t = 3.07; 3.07 * sqrt(1.333e-4) = 0.03546
    assert math.log1p(c.noise_floor_fraction) == pytest.approx(0.03546, rel=0.02)
    assert c.between_launch.provenance is Provenance.MEASURED


def test_launches_that_agree_by_chance_are_as_unsure_as_their_steps() -> None:
    # half widths of 1 with 1,000 independent steps: a standard error of 0.51 % in each launch
    first, second = [[launch(100, half=1.0)] * 3 for _ in range(2)]
    c = contrast(first, second, ASSUMED)
    # 2.776 * 0.0051 * sqrt(2 / 3) = 0.01156
    assert c.noise_floor_fraction == pytest.approx(0.01156, rel=0.01)


def test_swapping_the_runs_turns_the_change_around() -> None:
    a, b = [launch(100, half=1.0)], [launch(103, half=1.0)]
    there, back = contrast(a, b, ASSUMED), contrast(b, a, ASSUMED)
    assert math.log1p(there.low) == pytest.approx(-math.log1p(back.high))
    assert {there.verdict, back.verdict} == {Verdict.FASTER, Verdict.SLOWER}


def test_a_change_that_touches_nothing_is_none() -> None:
    c = Contrast(
        change_fraction=0.01, low=0.0, high=0.02, confidence=0.95, noise_floor_fraction=0.01, between_launch=ASSUMED, n_launches=(1, 1)
    )
    assert c.verdict is Verdict.CANNOT_TELL
