"""Several independent launches of one configuration as one measurement."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bench import stats
from bench.facts.measurement import Estimate, Measurement, MeasurementWarning, WarningKind
from bench.facts.run import MeasurePolicy

ROUNDING = 6  # decimals of a number of steps: 0.59 of 400 is 236, and not a hair more


def share_left(policy: MeasurePolicy, launches: Sequence[tuple[MeasurePolicy, Measurement]]) -> float:
    """The share of one launch that is still to be measured after these, each with what it was asked for; 0 when nothing is.

    A launch that was cut short has measured its part if it has steps enough to tell an interval; a further one takes the rest.
    """
    left = policy.launches - sum(_share(policy, asked, done) for asked, done in launches)
    return min(1.0, left) if left > 1e-9 else 0.0


def _share(policy: MeasurePolicy, asked: MeasurePolicy, done: Measurement) -> float:
    if policy.steps and asked.steps:
        steps = done.n_steps if done.is_partial else asked.steps
        return steps / policy.steps if is_counted(policy, done) else 0.0
    if not done.is_partial:
        return asked.budget_s / policy.budget_s
    return min(1.0, sum(done.ranks[0].window_s) / policy.budget_s) if is_counted(policy, done) else 0.0


def is_counted(policy: MeasurePolicy, launch: Measurement) -> bool:
    """Whether a launch has steps enough for a place in the mean."""
    return launch.n_steps >= min(policy.min_steps, policy.steps or policy.min_steps)


def scaled(policy: MeasurePolicy, share: float) -> MeasurePolicy:
    """What a launch is asked for that takes only a share of a whole one."""
    if policy.steps is None:
        return replace(policy, budget_s=policy.budget_s * share)
    return replace(policy, steps=max(min(policy.min_steps, policy.steps), math.ceil(round(share * policy.steps, ROUNDING))))


def pooled(launches: Sequence[Measurement], target_ci: float) -> Measurement:
    """The launches' mean throughput with an interval that their own spread widens; all else is as in the first launch.

    What was wrong with any of them is said with its number; whether the interval is too wide is asked of the pooled one.
    """
    first = next((m for m in launches if not m.is_partial), launches[0])
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
    text = f"interval +-{width:.2%} over launches is wider than the target of {target_ci:.2%}"
    return (MeasurementWarning(kind=WarningKind.WIDE_INTERVAL, text=text),) if width > target_ci else ()


def _warnings(launches: Sequence[Measurement]) -> tuple[MeasurementWarning, ...]:
    return tuple(
        replace(warning, text=f"launch {k}: {warning.text}")
        for k, m in enumerate(launches)
        for warning in m.warnings
        if warning.kind is not WarningKind.WIDE_INTERVAL
    )
