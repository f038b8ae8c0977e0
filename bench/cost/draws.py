"""Uncertain figures at standard normal scores. A score of 0 is the median; the scores come from whoever draws."""

import math

import numpy as np

from bench.cost.layout import Array
from bench.cost.uncertainty import NORMAL_P90
from bench.facts.figure import Interval, Parameter
from bench.facts.scenario import Range


def log_normal(parameter: Parameter, score: Array) -> Array:
    """The parameter at every score."""
    return np.asarray(parameter.value * np.exp(parameter.log_sd * score))


def interval_of_log_normal(parameter: Parameter) -> Interval:
    """The parameter's percentiles."""
    spread = math.exp(NORMAL_P90 * parameter.log_sd)
    return Interval(p10=parameter.value / spread, p50=parameter.value, p90=parameter.value * spread)


def two_sided(given: Range, score: Array) -> Array:
    """The range at every score: normal with one width above the middle and another below, cut at 0."""
    above, below = (given.p90 - given.p50) / NORMAL_P90, (given.p50 - given.p10) / NORMAL_P90
    return np.maximum(given.p50 + np.where(score > 0, above, below) * score, 0.0)


def log_two_sided(given: Interval, score: Array) -> Array:
    """An interval of a positive quantity at every score: log-normal with one width above the middle and another below."""
    above, below = np.log(given.p90 / given.p50) / NORMAL_P90, np.log(given.p50 / given.p10) / NORMAL_P90
    return np.asarray(given.p50 * np.exp(np.where(score > 0, above, below) * score))


def interval_of(samples: Array) -> Interval:
    """The percentiles of finite samples."""
    p10, p50, p90 = (float(q) for q in np.quantile(samples, (0.1, 0.5, 0.9)))
    return Interval(p10=p10, p50=p50, p90=p90)
