"""Several independent launches of one configuration as one measurement."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bench import stats
from bench.facts.measurement import Estimate, Measurement, MeasurementWarning, WarningKind


def pooled(launches: Sequence[Measurement], target_ci: float) -> Measurement:
    """The launches' mean throughput with an interval that their own spread widens; all else is as in the first launch.

    What was wrong with any of them is said with its number; whether the interval is too wide is asked of the pooled one.
    """
    first = launches[0]
    if len(launches) == 1:
        return first
    within = first.spread
    estimate, spread = stats.over_launches(
        [m.tokens_per_s for m in launches],
        within.n_hosts if within else 1,
        within.between_host_fraction if within else None,
    )
    return replace(
        first,
        tokens_per_s=estimate,
        step_s=stats.quantiles(np.concatenate([np.mean([r.step_s for r in m.ranks], axis=0) for m in launches])),
        spread=spread,
        warnings=(*_wide(estimate, target_ci), *_warnings(launches)),
        invalid=tuple(f"launch {k}: {text}" for k, m in enumerate(launches) for text in m.invalid),
    )


def _wide(estimate: Estimate, target_ci: float) -> tuple[MeasurementWarning, ...]:
    width = estimate.half_width_fraction
    text = f"interval +-{width:.1%} over launches is wider than the target of {target_ci:.1%}"
    return (MeasurementWarning(kind=WarningKind.WIDE_INTERVAL, text=text),) if width > target_ci else ()


def _warnings(launches: Sequence[Measurement]) -> tuple[MeasurementWarning, ...]:
    return tuple(
        replace(warning, text=f"launch {k}: {warning.text}")
        for k, m in enumerate(launches)
        for warning in m.warnings
        if warning.kind is not WarningKind.WIDE_INTERVAL
    )
