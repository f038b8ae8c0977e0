"""Work against the calendar: options that start late, ramp up and run at different speeds; who has done more by when."""

import numpy as np

from bench.cost.layout import Array


def full_days(day: Array, start_day: Array, ramp_days: Array) -> Array:
    """Days of full capacity that lie before `day`: none before the start, half of the ramp's.

    >>> float(full_days(np.array(30.0), np.array(10.0), np.array(20.0)))
    10.0
    """
    since = np.maximum(day - start_day, 0.0)
    ramp = np.maximum(ramp_days, 1e-9)
    within = np.minimum(since, ramp)
    return np.asarray(within**2 / (2 * ramp) + np.maximum(since - ramp, 0.0))


def day_of(work: Array, per_day: Array, start_day: Array, ramp_days: Array) -> Array:
    """The day on which so much work is done; infinite where nothing is ever done."""
    with np.errstate(divide="ignore", over="ignore"):
        needed = work / np.asarray(per_day, dtype=np.float64)  # infinite for a pace of 0
    ramp = np.asarray(ramp_days, dtype=np.float64)
    on_ramp = np.sqrt(2 * ramp * np.minimum(needed, ramp / 2))
    return np.asarray(start_day + np.where(needed <= ramp / 2, on_ramp, needed + ramp / 2))


def crossing_day(first: tuple[Array, Array, Array], second: tuple[Array, Array, Array], horizon_days: float) -> Array:
    """The last day within the horizon from which on the second has done more; infinite where it has not by its end.

    Each option is (work per day, start day, ramp days). Found on a grid of 1/4 day and then by halving.
    """
    grid = np.arange(0.0, horizon_days + 0.25, 0.25)
    lead = _lead(grid[:, None], first, second)  # (days, samples)
    behind = lead <= 0
    last = np.where(behind.any(axis=0), len(grid) - 1 - np.argmax(behind[::-1], axis=0), -1)
    crosses = (last < len(grid) - 1) & (lead[-1] > 0)
    low, high = grid[np.maximum(last, 0)], grid[np.minimum(last + 1, len(grid) - 1)]
    for _ in range(20):
        middle = (low + high) / 2
        ahead = _lead(middle, first, second) > 0
        low, high = np.where(ahead, low, middle), np.where(ahead, middle, high)
    return np.asarray(np.where(crosses, high, np.inf))


def _lead(day: Array, first: tuple[Array, Array, Array], second: tuple[Array, Array, Array]) -> Array:
    return second[0] * full_days(day, second[1], second[2]) - first[0] * full_days(day, first[1], first[2])
