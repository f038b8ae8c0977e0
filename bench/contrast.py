"""Launches of two runs to one change of speed, with an interval. Pure.

Steps of one launch tell nothing of how the next launch will do, so an interval over launches is what a comparison rests on. Where a
run has one launch only, how far launches differ is taken from the other run, or assumed, and the result says which.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

from bench.facts.comparison import Contrast
from bench.facts.figure import Figure, Provenance
from bench.facts.measurement import Estimate
from bench.stats import standard_error, student_t

ASSUMED_FREEDOM = 10.0  # an assumed spread is trusted no more than one that eleven launches would have told
SOUGHT_FRACTION = 0.03  # the change that a comparison should find where no gate names another
SURE = 0.95  # of the comparisons that should find it
MOST_LAUNCHES = 20  # that are worth advising


@dataclass(frozen=True)
class _Term:
    """A part of the variance of the logarithm of the ratio, and the degrees of freedom it was told with."""

    variance: float
    freedom: float

    def half_width(self, confidence: float) -> float:
        """Half of the t interval."""
        return student_t(confidence, self.freedom) * math.sqrt(self.variance)


def contrast(first: Sequence[Estimate], second: Sequence[Estimate], assumed: Figure, sought: float = SOUGHT_FRACTION) -> Contrast:
    """The change from the first run's launches to the second's: Welch's t interval over the logarithms of launch means.

    `assumed` is the standard deviation between launches, over their mean, where neither run has several; `sought` is the change,
    up or down, whose chance to be told is told.
    Source: Welch 1947; Satterthwaite 1946 (freedom of a sum of variances).

    >>> def launch(value): return Estimate(value=value, low=value, high=value, confidence=0.95, n_steps=20, block_length=1)
    >>> round(contrast([launch(100.0)], [launch(110.0)], Figure(value=0.0, provenance="assumed", source="none")).change_fraction, 6)
    0.1
    """
    between, confidence = _between(first, second, assumed), first[0].confidence
    freedom = sum(len(side) - 1 for side in (first, second) if len(side) > 1) or ASSUMED_FREEDOM
    terms = [*_terms(first), *_terms(second)]
    n_alone = (len(first) == 1) + (len(second) == 1)
    terms += [_Term(n_alone * between.value**2, freedom)] * bool(n_alone)
    change, whole = fmean(_logs(second)) - fmean(_logs(first)), _summed(terms)
    half = whole.half_width(confidence)
    return Contrast(
        change_fraction=math.expm1(change),
        low=math.expm1(change - half),
        high=math.expm1(change + half),
        confidence=confidence,
        noise_floor_fraction=math.expm1(half),
        between_launch=between,
        n_launches=(len(first), len(second)),
        sought_fraction=abs(sought),
        power=_power(abs(sought), whole, confidence),
        n_launches_needed=_launches_needed(abs(sought), _variance_of_one(first, second, between), confidence),
    )


def _power(sought: float, of: _Term, confidence: float) -> float:
    """The chance that a true change as large as `sought`, the harder of up and down, leaves nothing outside the interval on its side.

    Source: Abramowitz and Stegun 1964, 26.7.10 (the noncentral t as a normal distribution).
    """
    if of.variance == 0:
        return 1.0
    t, shift = student_t(confidence, of.freedom), math.log1p(sought) / math.sqrt(of.variance)
    return NormalDist().cdf((shift - t * (1 - 1 / (4 * of.freedom))) / math.sqrt(1 + t * t / (2 * of.freedom)))


def _launches_needed(sought: float, variance_of_one: float, confidence: float) -> int | None:
    """The fewest launches of each run that find the change nearly always; None where that takes too many."""
    several = ((n, _Term(2 * variance_of_one / n, 2 * (n - 1))) for n in range(2, MOST_LAUNCHES + 1))
    return next((n for n, term in several if _power(sought, term, confidence) >= SURE), None)


def _variance_of_one(first: Sequence[Estimate], second: Sequence[Estimate], between: Figure) -> float:
    """Variance of one launch's mean about those of others: a measured spread has that of its steps in it, an assumed one has not."""
    steps = 0.0 if between.provenance is Provenance.MEASURED else fmean(_step_variance(e) for e in (*first, *second))
    return between.value**2 + steps


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
    return [_Term(_step_variance(e), max(1.0, e.n_steps / e.block_length - 1))]


def _launch_variance(launches: Sequence[Estimate]) -> float:
    """Variance of a launch's mean about those of other launches: never below what the steps inside them leave unsure."""
    return max(variance(_logs(launches)), fmean(map(_step_variance, launches)))


def _step_variance(e: Estimate) -> float:
    return (standard_error(e) / e.value) ** 2


def _summed(terms: Sequence[_Term]) -> _Term:
    whole = sum(term.variance for term in terms)
    return _Term(whole, whole**2 / sum(term.variance**2 / term.freedom for term in terms)) if whole else _Term(0.0, 1.0)


def _logs(launches: Sequence[Estimate]) -> list[float]:
    return [math.log(e.value) for e in launches]
