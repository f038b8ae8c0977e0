"""What a picture shows, before anybody draws it: series over axes, with a sentence for those who cannot see it."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """How a series is drawn."""

    LINE = "line"
    POINTS = "points"
    BARS = "bars"  # from the axis up, as wide as the x values lie apart
    STACK = "stack"  # one horizontal bar per category, parts beside one another


@dataclass(frozen=True)
class Series:
    """Values of one kind. `low` and `high`, where given, make a band; a dotted line is predicted, a solid one measured."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    kind: Kind = Kind.LINE
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()  # of each point, shown where it is pointed at
    dotted: bool = False
    tone: int = 0  # which colour of the page


@dataclass(frozen=True)
class Axis:
    """One direction of a chart. `categories` name whole numbers from 0."""

    label: str
    is_log: bool = False
    categories: tuple[str, ...] = ()
    from_zero: bool = False


@dataclass(frozen=True)
class Span:
    """A stretch or, where it has no width, a line of the x axis with a word on it."""

    begin: float
    end: float
    label: str


@dataclass(frozen=True)
class Chart:
    """A picture. `summary` says what is to be seen, in a sentence with figures."""

    name: str  # of the file of its data
    title: str
    summary: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    spans: tuple[Span, ...] = field(default=())
    provenance: str = ""


def limits(values: Sequence[float], axis: Axis) -> tuple[float, float]:
    """The ends of an axis that holds the values."""
    kept = [v for v in values if math.isfinite(v) and (v > 0 or not axis.is_log)]
    if axis.categories:
        return -0.5, len(axis.categories) - 0.5
    if not kept:
        return (1.0, 10.0) if axis.is_log else (0.0, 1.0)
    low, high = min(kept), max(kept)
    if axis.is_log:
        return low / 1.25, high * 1.25
    low = 0.0 if axis.from_zero else low
    margin = 0.04 * (high - low) or abs(high) * 0.05 or 1.0
    return (low if axis.from_zero else low - margin), high + margin


def ticks(low: float, high: float, is_log: bool, n: int = 6) -> tuple[float, ...]:
    """Round values between the ends: steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0, 10, False)
    (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
    >>> ticks(8, 5000, True)
    (10.0, 100.0, 1000.0)
    """
    if is_log:
        decades = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        found = tuple(10.0**k for k in decades)
        if len(found) >= 2:
            return found[:: max(1, math.ceil(len(found) / n))]
        fine = [m * 10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)]
        return tuple(v for v in fine if low <= v <= high)
    step = (high - low) / n
    power = 10.0 ** math.floor(math.log10(step))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))
    return tuple(round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1))


def table_of(chart: Chart) -> str:
    """The data behind a chart, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("series", chart.x.label, chart.y.label, "low", "high", "label"))
    for one in chart.series:
        lows, highs = one.low or ("",) * len(one.x), one.high or ("",) * len(one.x)
        labels = one.labels or ("",) * len(one.x)
        writer.writerows(
            (one.name, _named(x, chart.x), y, lo, hi, la) for x, y, lo, hi, la in zip(one.x, one.y, lows, highs, labels, strict=True)
        )
    return text.getvalue()


def _named(value: float, axis: Axis) -> float | str:
    return axis.categories[int(value)] if axis.categories else value
