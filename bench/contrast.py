"""Launches of two runs to one change of speed, with an interval. Pure.

Steps of one launch tell nothing of how the next launch will do, so an interval over launches is what a comparison rests on. Where a
run has one launch only, how far launches differ is taken from the other run, or assumed, and the result says which.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from bench.facts.comparison import Contrast
from bench.facts.figure import Figure, Provenance
from bench.facts.measurement import Estimate
from bench.stats import standard_error, student_t

ASSUMED_FREEDOM = 10.0  # an assumed spread is trusted no more than one that eleven launches would have told


@dataclass(frozen=True)
class _Term:
    """A part of the variance of the logarithm of the ratio, and the degrees of freedom it was told with."""

    variance: float
    freedom: float


def contrast(first: Sequence[Estimate], second: Sequence[Estimate], assumed: Figure) -> Contrast:
    """The change from the first run's launches to the second's: Welch's t interval over the logarithms of launch means.

    `assumed` is the standard deviation between launches, over their mean, where neither run has several.
    Source: Welch 1947; Satterthwaite 1946 (freedom of a sum of variances).

    >>> def launch(value): return Estimate(value=value, low=value, high=value, confidence=0.95, n_steps=20, block_length=1)
    >>> round(contrast([launch(100.0)], [launch(110.0)], Figure(value=0.0, provenance="assumed", source="none")).change_fraction, 6)
    0.1
    """
    between = _between(first, second, assumed)
    freedom = sum(len(side) - 1 for side in (first, second) if len(side) > 1) or ASSUMED_FREEDOM
    terms = [*_terms(first), *_terms(second)]
    n_alone = (len(first) == 1) + (len(second) == 1)
    terms += [_Term(n_alone * between.value**2, freedom)] * bool(n_alone)
    change = fmean(_logs(second)) - fmean(_logs(first))
    half = _half_width(terms, first[0].confidence)
    return Contrast(
        change_fraction=math.expm1(change),
        low=math.expm1(change - half),
        high=math.expm1(change + half),
        confidence=first[0].confidence,
        noise_floor_fraction=math.expm1(half),
        between_launch=between,
        n_launches=(len(first), len(second)),
    )


def _between(first: Sequence[Estimate], second: Sequence[Estimate], assumed: Figure) -> Figure:
    """The standard deviation between launches: of all sides that have several, or the assumed one."""
    several = [side for side in (first, second) if len(side) > 1]
    if not several:
        return assumed
    freedom = sum(len(side) - 1 for side in several)
    pooled = sum((len(side) - 1) * _launch_variance(side) for side in several) / freedom
    n = " and ".join(str(len(side)) for side in several)
    return Figure(value=math.sqrt(pooled), provenance=Provenance.MEASURED, source=f"the spread of {n} launches")


def _terms(launches: Sequence[Estimate]) -> list[_Term]:
    """What one run adds to the variance: its launches' own spread, or of a single launch the error that its steps tell."""
    n = len(launches)
    if n > 1:
        return [_Term(_launch_variance(launches) / n, n - 1)]
    e = launches[0]
    return [_Term((standard_error(e) / e.value) ** 2, max(1.0, e.n_steps / e.block_length - 1))]


def _launch_variance(launches: Sequence[Estimate]) -> float:
    """Variance of a launch's mean about those of other launches: never below what the steps inside them leave unsure."""
    return max(variance(_logs(launches)), fmean((standard_error(e) / e.value) ** 2 for e in launches))


def _half_width(terms: Sequence[_Term], confidence: float) -> float:
    whole = sum(term.variance for term in terms)
    if whole == 0:
        return 0.0
    freedom = whole**2 / sum(term.variance**2 / term.freedom for term in terms)
    return student_t(confidence, freedom) * math.sqrt(whole)


def _logs(launches: Sequence[Estimate]) -> list[float]:
    return [math.log(e.value) for e in launches]
