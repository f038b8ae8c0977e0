"""Verdicts on pairs of runs whose true difference is known."""

import math

import numpy as np
import pytest

from bench import stats
from bench.config.compose import load
from bench.contrast import contrast
from bench.facts.comparison import Contrast, Verdict
from bench.facts.figure import Figure, Provenance
from bench.facts.measurement import Estimate
from bench.facts.result import Result
from bench.run.stopping import StoppingRule
from tests.kept_runs import composed, launch_of, result_of, steps_of

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


def measured_by_default(rng: np.random.Generator, tokens_per_s: float, noise: float) -> list[Estimate]:
    """One launch of half-second steps, ended by the default policy when it thinks fit: 30 to 130 of them."""
    policy, speed = load(composed()).measure, tokens_per_s * (1 + BETWEEN_LAUNCHES * rng.standard_normal())
    steps = steps_of(rng, 2 * speed, 200, noise)
    rule, n = StoppingRule(policy, 1024.0, float(steps[0])), 0
    while more := rule.next_window(list(steps[:n])):
        n += more
    return [stats.throughput(steps[:n], 1024.0, policy.confidence)]


@pytest.mark.parametrize(("noise", "found_at_least"), [(0.011, 0.93), (0.02, 0.93), (0.03, 0.9)])
def test_at_default_settings_3_percent_is_found_and_equal_runs_are_not_called_different(noise: float, found_at_least: float) -> None:
    """Nobody chose how many steps: noisier ones are measured longer. 200 pairs have a standard error of 1.5 % at 95 %."""
    rng = np.random.default_rng(31)
    told = [
        [contrast(measured_by_default(rng, 1000, noise), measured_by_default(rng, speed, noise), ASSUMED).verdict for speed in (1000, 970)]
        for _ in range(N_PAIRS)
    ]
    assert np.mean([equal is not Verdict.CANNOT_TELL for equal, _ in told]) <= 0.05
    assert np.mean([slower is Verdict.SLOWER for _, slower in told]) >= found_at_least


@pytest.mark.parametrize(("n_launches", "noise"), [(1, 0.011), (1, 0.03), (3, 0.018), (5, 0.03)])
def test_the_chance_that_is_told_is_the_frequency_with_which_the_change_is_found(n_launches: int, noise: float) -> None:
    rng = np.random.default_rng(3)

    def side(tokens_per_s: float) -> list[Estimate]:
        speeds = tokens_per_s * (1 + BETWEEN_LAUNCHES * rng.standard_normal(n_launches))
        return [stats.throughput(steps_of(rng, speed, N_STEPS, noise), 1024, 0.95) for speed in speeds]

    found = [contrast(side(1000), side(970), ASSUMED) for _ in range(N_PAIRS)]
    assert np.mean([c.power for c in found]) == pytest.approx(np.mean([c.verdict is Verdict.SLOWER for c in found]), abs=0.06)


def test_as_many_launches_as_are_advised_find_the_change() -> None:
    rng = np.random.default_rng(8)
    noisy = contrast([launch(100, half=1.2)], [launch(100, half=1.2)], ASSUMED)
    assert noisy.power < 0.9
    assert noisy.n_launches_needed == 4
    # launches differ by 0.5 %, and by 0.61 % of their own steps: sqrt(0.005^2 + 0.0061^2) = 0.79 %
    sides = [[[launch(s) for s in speed * (1 + 0.0079 * rng.standard_normal(4))] for speed in (100, 97)] for _ in range(300)]
    assert np.mean([contrast(first, second, ASSUMED).verdict is Verdict.SLOWER for first, second in sides]) >= 0.93


def test_a_gate_is_what_is_sought_and_a_finer_one_is_harder_to_see() -> None:
    powers = [contrast([launch(100)], [launch(100)], ASSUMED, sought).power for sought in (-0.05, -0.03, -0.01)]
    assert powers == sorted(powers, reverse=True)
    assert powers[0] > 0.99
    assert powers[2] < 0.35
    assert contrast([launch(100)], [launch(100)], ASSUMED, -1e-4).n_launches_needed is None


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
        change_fraction=0.01, low=0.0, high=0.02, confidence=0.95, noise_floor_fraction=0.01, between_launch=ASSUMED, n_launches=(1, 1),
        sought_fraction=0.03, power=1.0, n_launches_needed=None,
    )  # fmt: skip
    assert c.verdict is Verdict.CANNOT_TELL
