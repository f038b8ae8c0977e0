"""Statistics on signals whose answer is known."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import stats

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
