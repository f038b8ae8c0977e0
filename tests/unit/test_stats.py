"""Statistics on signals whose answer is known."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import stats
from bench.facts.measurement import Estimate

Signal = Callable[[np.random.Generator, int], NDArray[np.float64]]
TRIALS = 200


def independent(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return 1 + 0.02 * rng.standard_normal(n)


def correlated(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """AR(1) with coefficient 0.6: autocorrelation time (1 + 0.6) / (1 - 0.6) = 4."""
    x = np.zeros(n + 50)
    for i in range(1, n + 50):
        x[i] = 0.6 * x[i - 1] + 0.02 * rng.standard_normal()
    return 1 + x[50:]


def collecting(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Every tenth step 30 % longer, from a random one on: mean 1.03."""
    x = 1 + 0.01 * rng.standard_normal(n)
    x[int(rng.integers(10)) :: 10] += 0.3
    return x


@pytest.mark.parametrize(
    ("signal", "mean", "n", "at_least"),
    [
        (independent, 1.0, 10, 0.92),
        (independent, 1.0, 100, 0.92),
        (correlated, 1.0, 40, 0.88),
        (correlated, 1.0, 200, 0.9),
        (collecting, 1.03, 50, 0.92),
    ],
)
def test_95_percent_intervals_hold_the_truth_as_often_as_they_say(signal: Signal, mean: float, n: int, at_least: float) -> None:
    rng = np.random.default_rng(7)
    estimates = [stats.throughput(signal(rng, n), 1.0, 0.95) for _ in range(TRIALS)]
    assert np.mean([e.low <= 1 / mean <= e.high for e in estimates]) >= at_least


def test_throughput_is_all_tokens_over_all_seconds() -> None:
    # 3 steps of 100 tokens in 1 + 2 + 3 s: 300 / 6
    assert stats.throughput([1.0, 2.0, 3.0], 100, 0.95).value == pytest.approx(50)


def test_intervals_of_correlated_steps_are_wider_than_of_independent_ones() -> None:
    rng = np.random.default_rng(3)
    x = correlated(rng, 400)
    assert stats.throughput(x, 1.0, 0.95).half_width_fraction > 1.5 * stats.throughput(rng.permutation(x), 1.0, 0.95).half_width_fraction


def test_equal_steps_leave_no_interval() -> None:
    e = stats.throughput([0.5] * 30, 10, 0.95)
    assert (e.low, e.value, e.high) == (20, 20, 20)


def test_autocorrelation_time_of_an_ar1_process() -> None:
    rng = np.random.default_rng(5)
    assert stats.autocorrelation_time(correlated(rng, 20_000)) == pytest.approx(4, rel=0.15)
    assert stats.autocorrelation_time(independent(rng, 20_000)) == pytest.approx(1, rel=0.05)


def test_an_outlier_is_counted_and_stays_in_the_mean() -> None:
    steps = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 3.0, 1.0, 1.01]
    assert stats.outliers(steps) == (7,)
    assert stats.throughput(steps, 1.0, 0.95).value == pytest.approx(10 / sum(steps))


def test_noise_alone_has_no_outliers() -> None:
    assert stats.outliers(independent(np.random.default_rng(2), 1000)) == ()


def test_a_step_down_is_not_steady_until_two_stretches_lie_behind_it() -> None:
    rng = np.random.default_rng(4)
    signal = np.concatenate((2 * independent(rng, 10), independent(rng, 20)))
    verdicts = [stats.is_steady(signal[:n], stretch=5, tolerance=0.03) for n in (15, 20, 30)]
    assert verdicts == [False, True, True]


def test_a_long_drift_is_not_steady() -> None:
    drift = np.linspace(2.0, 1.0, 20)
    assert not stats.is_steady(drift, stretch=5, tolerance=0.03)


def test_a_drift_is_a_trend_and_noise_is_none() -> None:
    rng = np.random.default_rng(6)
    noise = independent(rng, 60)
    assert stats.trend_fraction(noise) == 0
    # 10 % up from first to last, under 2 % of noise
    assert stats.trend_fraction(noise + np.linspace(0, 0.1, 60)) == pytest.approx(0.1, abs=0.03)


def test_a_long_series_has_its_trend_found_in_little_memory() -> None:
    assert stats.trend_fraction(np.linspace(1.0, 1.1, 50_000)) == pytest.approx(0.095, abs=0.01)


def test_quantiles_of_a_known_sample() -> None:
    q = stats.quantiles(range(101))
    assert (q.p10, q.median, q.p90, q.p99) == (10, 50, 90, 99)


def heavy_tailed(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Log-normal with a standard deviation of 0.3 in logarithms, of mean 1."""
    return np.exp(0.3 * rng.standard_normal(n) - 0.045)


@pytest.mark.parametrize("n", [30, 100])
def test_intervals_hold_the_truth_of_heavy_tails_too(n: int) -> None:
    rng = np.random.default_rng(8)
    estimates = [stats.throughput(heavy_tailed(rng, n), 1.0, 0.95) for _ in range(TRIALS)]
    assert np.mean([e.low <= 1 <= e.high for e in estimates]) >= 0.92


def test_a_long_series_is_shortened_without_changing_its_interval() -> None:
    rng = np.random.default_rng(9)
    x = independent(rng, 20_000)
    e = stats.throughput(x, 1.0, 0.95)
    # 1.96 * 0.02 / sqrt(20000) = 0.028 %
    assert e.half_width_fraction == pytest.approx(0.000277, rel=0.15)
    assert e.n_steps == 20_000
    assert e.value == pytest.approx(1 / float(x.mean()))


def test_the_standard_error_is_what_the_interval_was_made_of() -> None:
    rng = np.random.default_rng(10)
    # 0.02 / sqrt(100) = 0.002
    errors = [stats.standard_error(stats.throughput(independent(rng, 100), 1.0, 0.95)) for _ in range(50)]
    assert np.mean(errors) == pytest.approx(0.002, rel=0.1)


def launches(rng: np.random.Generator, n: int, between: float) -> list[Estimate]:
    """Runs of 100 steps with 2 % noise: a standard error of 0.2 % within each, and another true speed for every launch."""
    return [stats.throughput(independent(rng, 100) * (1 + between * rng.standard_normal()), 1.0, 0.95) for _ in range(n)]


@pytest.mark.parametrize(("n", "between"), [(2, 0.03), (3, 0.03), (5, 0.03), (3, 0.0)])
def test_an_interval_over_launches_holds_what_many_launches_average_to(n: int, between: float) -> None:
    rng = np.random.default_rng(11)
    estimates = [stats.over_launches(launches(rng, n, between))[0] for _ in range(TRIALS)]
    assert np.mean([e.low <= 1 <= e.high for e in estimates]) >= 0.92


def test_one_launch_says_nothing_about_others() -> None:
    rng = np.random.default_rng(12)
    alone = launches(rng, 1, 0.0)
    estimate, spread = stats.over_launches(alone)
    assert estimate == alone[0]
    assert (spread.n_launches, spread.between_launch_fraction) == (1, None)


def test_the_spread_is_split_into_within_and_between() -> None:
    rng = np.random.default_rng(13)
    spreads = [stats.over_launches(launches(rng, 5, 0.03))[1] for _ in range(100)]
    assert np.mean([s.within_run_fraction for s in spreads]) == pytest.approx(0.002, rel=0.1)
    assert math.sqrt(np.mean([(s.between_launch_fraction or 0) ** 2 for s in spreads])) == pytest.approx(0.03, rel=0.1)
    alike = [stats.over_launches(launches(rng, 5, 0.0))[1].between_launch_fraction or 0.0 for _ in range(100)]
    assert np.mean(alike) < 0.0015


def test_four_of_five_repeated_measurements_hold_their_pooled_mean() -> None:
    """The promise to users, on made-up launches that differ by 3 %: each measurement has three of them."""
    rng = np.random.default_rng(14)
    kept = 0
    for _ in range(50):
        repeats = [stats.over_launches(launches(rng, 3, 0.03))[0] for _ in range(5)]
        pooled = np.mean([e.value for e in repeats])
        kept += sum(e.low <= pooled <= e.high for e in repeats) >= 4
    assert kept >= 48


def test_a_difference_between_hosts_is_told_from_that_between_their_ranks() -> None:
    # two hosts, 1 and 3; ranks within a host are equal: the standard deviation of (1, 3) is sqrt(2), over the mean of 2
    assert stats.between_groups_fraction([[1.0, 1.0], [3.0, 3.0]]) == pytest.approx(math.sqrt(2) / 2)
    # means 2 and 2: nothing between them
    assert stats.between_groups_fraction([[1.0, 3.0], [1.0, 3.0]]) == 0
    # MS between = 2 (2.5 - 2)^2 + 2 (1.5 - 2)^2 = 1, MS within = (4 * 0.25) / 2 = 0.5, group size 2: sqrt(0.25) / 2
    assert stats.between_groups_fraction([[2.0, 3.0], [1.0, 2.0]]) == pytest.approx(0.25)
    assert stats.between_groups_fraction([[1.0, 2.0]]) is None
