"""Samples to numbers: quantiles, intervals, autocorrelation, steadiness, outliers, trends. Pure; random only through a fixed seed."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from bench.facts.measurement import Estimate, Quantiles, Spread

Samples = Sequence[float] | NDArray[np.float64]

N_RESAMPLES = 2000
MOST_RESAMPLED = 2000  # values; longer series are first shortened to means of equal stretches
OUTLIER_DEVIATIONS = 5.0
MAD_TO_SD = 1.4826  # of a normal distribution


def quantiles(samples: Samples) -> Quantiles:
    """Median, 10th, 90th and 99th percentile, linearly interpolated."""
    p10, median, p90, p99 = (float(q) for q in np.quantile(np.asarray(samples, dtype=float), (0.1, 0.5, 0.9, 0.99)))
    return Quantiles(p10=p10, median=median, p90=p90, p99=p99)


def throughput(step_s: Samples, tokens_per_step: float, confidence: float) -> Estimate:
    """Tokens per second: all tokens over all seconds, with an interval that allows for correlated steps.

    Moving-block bootstrap of the mean step time, its deviations stretched to Student's t for the number of blocks.
    Source: Kuensch 1989 (moving blocks); Politis and White 2004, eq. 9 (block length, here for an AR(1) process).
    """
    mean, stretch = float(np.mean(step_s)), math.ceil(len(step_s) / MOST_RESAMPLED)
    steps = _thinned(np.asarray(step_s, dtype=float), MOST_RESAMPLED)
    block = block_length(steps)
    deviations = _resampled_means(steps, block) - float(steps.mean())
    deviations *= _correlation_factor(steps, deviations) * _small_sample_factor(len(steps) / block, confidence)
    tail = (1 - confidence) / 2
    low_s, high_s = mean + np.quantile(deviations, (tail, 1 - tail))
    return Estimate(
        value=tokens_per_step / mean,
        low=tokens_per_step / max(float(high_s), mean),
        high=tokens_per_step / min(max(float(low_s), mean / 2), mean),
        confidence=confidence,
        n_steps=len(step_s),
        block_length=block * stretch,
    )


def over_launches(launches: Sequence[Estimate], n_hosts: int = 1, between_host_fraction: float | None = None) -> tuple[Estimate, Spread]:
    """The mean launch, with an interval for what many launches would average to, and the spread within and between launches.

    One-way random effects with equal weights: the launches' own spread holds both components, so its t interval needs no split;
    it is never narrower than the launches' own intervals allow. Source: Searle, Casella and McCulloch 1992, section 3.5.
    """
    values = np.array([e.value for e in launches])
    confidence, n, mean = launches[0].confidence, len(launches), float(np.mean(values))
    within = math.sqrt(float(np.mean([standard_error(e) ** 2 for e in launches])))
    half = math.sqrt(sum(((e.high - e.low) / 2) ** 2 for e in launches)) / n
    between = None
    if n > 1:
        variance = float(values.var(ddof=1))
        between = math.sqrt(max(0.0, variance - within**2)) / mean
        half = max(half, student_t(confidence, n - 1) * math.sqrt(variance / n))
    pooled = Estimate(
        value=mean,
        low=max(0.0, mean - half) if n > 1 else launches[0].low,
        high=mean + half if n > 1 else launches[0].high,
        confidence=confidence,
        n_steps=sum(e.n_steps for e in launches),
        block_length=max(e.block_length for e in launches),
    )
    return pooled, Spread(
        n_launches=n,
        n_hosts=n_hosts,
        within_run_fraction=within / mean,
        between_launch_fraction=between,
        between_host_fraction=between_host_fraction,
    )


def standard_error(e: Estimate) -> float:
    """Standard error of the value, from its interval and what stretched that."""
    half_width_in_errors = NormalDist().inv_cdf((1 + e.confidence) / 2) * _small_sample_factor(e.n_steps / e.block_length, e.confidence)
    return (e.high - e.low) / 2 / half_width_in_errors


def between_groups_fraction(groups: Sequence[Samples]) -> float | None:
    """Standard deviation between groups over the mean of all samples, that within groups taken off; None for fewer than two groups.

    Source: Searle, Casella and McCulloch 1992, section 3.6 (analysis of variance of unequal groups).
    """
    sizes = np.array([len(group) for group in groups], dtype=float)
    n, k = float(sizes.sum()), len(groups)
    if k < 2:
        return None
    means = np.array([np.mean(group) for group in groups])
    mean = float((sizes * means).sum() / n)
    inside = sum(float(np.square(np.asarray(group) - m).sum()) for group, m in zip(groups, means, strict=True))
    mean_square_inside = inside / (n - k) if n > k else 0.0
    mean_square_between = float((sizes * (means - mean) ** 2).sum()) / (k - 1)
    typical_size = (n - float((sizes**2).sum()) / n) / (k - 1)
    return math.sqrt(max(0.0, mean_square_between - mean_square_inside) / typical_size) / mean


def student_t(confidence: float, freedom: float) -> float:
    """Half width, in standard errors, of an interval from a normal sample whose spread has so many degrees of freedom.

    With t = sqrt(freedom) tan(a), P(|T| < t) is the integral of cos^(freedom - 1) from 0 to a over that to pi / 2.

    >>> [round(student_t(0.95, freedom), 2) for freedom in (1, 2, 10, 100)]
    [12.71, 4.3, 2.23, 1.98]
    """
    freedom = min(freedom, 1000.0)
    angle = np.linspace(0, math.pi / 2, 4001)
    density = np.cos(angle) ** (freedom - 1)
    mass = np.concatenate(([0.0], np.cumsum(density[1:] + density[:-1])))
    return math.sqrt(freedom) * math.tan(float(np.interp(confidence, mass / mass[-1], angle)))


def _resampled_means(steps: NDArray[np.float64], block: int) -> NDArray[np.float64]:
    n_blocks = math.ceil(len(steps) / block)
    starts = np.random.default_rng(0).integers(0, len(steps), size=(N_RESAMPLES, n_blocks))
    # circular: every step is drawn equally often
    sums = np.concatenate(([0.0], np.cumsum(np.concatenate((steps, steps[: block - 1])))))
    means: NDArray[np.float64] = (sums[starts + block] - sums[starts]).mean(axis=1) / block
    return means


def _correlation_factor(steps: NDArray[np.float64], deviations: NDArray[np.float64]) -> float:
    """Standard error that the autocorrelation time gives over that of the bootstrap, where few blocks make it too narrow."""
    resampled = float(deviations.std())
    return max(1.0, float(steps.std(ddof=1)) / math.sqrt(effective_samples(steps)) / resampled) if resampled > 0 else 1.0


def _small_sample_factor(n_blocks: float, confidence: float) -> float:
    """Half width of a t interval of `n_blocks` values over that of the bootstrap, which acts as if their spread were known."""
    freedom = max(n_blocks - 1, 1.0)
    return student_t(confidence, freedom) / NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt((freedom + 1) / freedom)


def autocorrelation_time(samples: Samples) -> float:
    """Samples that carry the information of one independent sample; 1 where they are independent.

    Sum of autocorrelations up to a self-consistent window of five times itself, and at least that of the AR(1) process
    with the first of them, freed of its bias in short series, where that one is not chance.
    Source: Sokal 1997, Monte Carlo Methods in Statistical Mechanics, section 3; Kendall 1954 (bias).
    """
    x = np.asarray(samples, dtype=float) - np.mean(samples)
    n, variance = len(x), float(np.mean(x * x))
    if n < 4 or variance == 0:
        return 1.0
    spectrum = np.fft.rfft(x, 2 * n)
    rho = np.fft.irfft(spectrum * np.conj(spectrum))[:n] / (n * variance)
    tau = 1.0
    for lag in range(1, n // 2):
        tau += 2 * float(rho[lag])
        if lag >= 5 * tau:
            break
    return max(1.0, tau, _first_order_time(float(rho[1]), n))


def _first_order_time(rho: float, n: int) -> float:
    if rho <= 1.28 / math.sqrt(n):  # one in ten independent series goes beyond
        return 1.0
    rho = min(rho + (1 + 3 * rho) / n, 0.98)
    return (1 + rho) / (1 - rho)


def effective_samples(samples: Samples) -> float:
    """Number of independent samples that would tell the mean as well."""
    return len(samples) / autocorrelation_time(samples)


def block_length(samples: Samples) -> int:
    """Steps in one block of the bootstrap, at most a quarter of all.

    Source: Politis and White 2004, for the AR(1) process that has the measured autocorrelation time.
    """
    n, tau = len(samples), autocorrelation_time(samples)
    correlation = (tau * tau - 1) / (2 * tau)  # 2 rho / (1 - rho^2)
    return max(1, min(n // 4, math.ceil((1.5 * correlation**2 * n) ** (1 / 3)))) if n >= 4 else 1


def is_steady(step_s: Samples, stretch: int, tolerance: float) -> bool:
    """Whether the last `stretch` steps differ from the `stretch` before them by no more than the tolerance or their own noise.

    Noise: two standard errors of a difference of medians, from the median absolute deviation of both stretches.
    """
    if len(step_s) < 2 * stretch:
        return False
    last = np.asarray(step_s[-stretch:], dtype=float)
    before = np.asarray(step_s[-2 * stretch : -stretch], dtype=float)
    change = abs(float(np.median(last) - np.median(before)))
    spread = max(deviation(last), deviation(before))
    # 1.2533: standard error of a median over that of a mean, for normal samples
    noise = 2 * 1.2533 * spread * math.sqrt(2 / stretch)
    return change <= max(tolerance * float(np.median(before)), min(noise, 5 * tolerance * float(np.median(before))))


def deviation(samples: Samples) -> float:
    """Standard deviation as the median absolute deviation tells it: a few outliers do not move it."""
    x = np.asarray(samples, dtype=float)
    return MAD_TO_SD * float(np.median(np.abs(x - np.median(x))))


def outliers(samples: Samples) -> tuple[int, ...]:
    """Places of the samples more than five robust standard deviations above the median, none below 1 % of it. They stay in every mean."""
    x = np.asarray(samples, dtype=float)
    median = float(np.median(x))
    limit = median + max(OUTLIER_DEVIATIONS * deviation(x), 0.01 * median)
    return tuple(int(i) for i in np.flatnonzero(x > limit))


def trend_fraction(samples: Samples) -> float:
    """Change from the first to the last sample over the median, 0 where it may be chance (two-sided 1 %).

    Slope after Theil and Sen; significance by Mann and Kendall's S with the effective number of samples.
    """
    x = _thinned(np.asarray(samples, dtype=float))
    n = len(x)
    if n < 8:
        return 0.0
    rise = x[None, :] - x[:, None]
    later = np.triu_indices(n, 1)
    score = float(np.sign(rise[later]).sum())
    variance = n * (n - 1) * (2 * n + 5) / 18 * autocorrelation_time(x - _line(x))
    if abs(score) <= NormalDist().inv_cdf(0.995) * math.sqrt(variance):
        return 0.0
    slope = float(np.median(rise[later] / (later[1] - later[0])))
    return slope * (n - 1) / float(np.median(x))


def _thinned(x: NDArray[np.float64], most: int = 300) -> NDArray[np.float64]:
    """At most so many means of equal stretches: pairs grow with the square."""
    stretch = math.ceil(len(x) / most)
    whole: NDArray[np.float64] = x[: len(x) // stretch * stretch].reshape(-1, stretch).mean(axis=1)
    return whole


def _line(x: NDArray[np.float64]) -> NDArray[np.float64]:
    slope, start = np.polyfit(np.arange(len(x)), x, 1)
    fitted: NDArray[np.float64] = start + slope * np.arange(len(x))
    return fitted


def median_interval(samples: Samples, confidence: float) -> tuple[float, float, float]:
    """Median with the ends of its confidence interval: (low, median, high), order statistics without any assumed distribution.

    Ranks from the binomial distribution in its normal form, for the effective number of samples; few samples end at their extremes.
    Source: Hettmansperger and Sheather 1986, section 1.

    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0], 0.95)
    (1.0, 3.0, 5.0)
    """
    half = NormalDist().inv_cdf((1 + confidence) / 2) / (2 * math.sqrt(effective_samples(samples)))
    low, median, high = np.quantile(np.asarray(samples, dtype=float), (max(0.0, 0.5 - half), 0.5, min(1.0, 0.5 + half)))
    return float(low), float(median), float(high)
