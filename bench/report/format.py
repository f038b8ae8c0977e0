"""Numbers for people: the only place where ms, GiB, TFLOP/s and % appear."""

from bench.facts.figure import Interval
from bench.facts.progress import TimeLeft
from bench.facts.units import GIB

PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def significant(value: float, digits: int = 3) -> str:
    """The value to so many significant digits, with thousands separated and no exponent.

    >>> significant(1234567), significant(0.01234), significant(9.996)
    ('1,230,000', '0.0123', '10.0')
    """
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = int(f"{rounded:.{digits - 1}e}".split("e")[1])
    return f"{rounded:,.{max(0, digits - 1 - exponent)}f}"


def scaled(value: float, unit: str, digits: int = 3) -> str:
    """The value with a decimal prefix.

    >>> scaled(3.21e14, "FLOP/s")
    '321 TFLOP/s'
    """
    for factor, prefix in PREFIXES:
        if abs(value) >= factor:
            return f"{significant(value / factor, digits)} {prefix}{unit}"
    return f"{significant(value, digits)} {unit}".strip()


def short(value: float) -> str:
    """The value as a chart's axis has it.

    >>> short(24000), short(0.25), short(0)
    ('24k', '0.25', '0')
    """
    for factor, prefix in PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.3g}{prefix}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    """A duration in the unit that suits it.

    >>> seconds(0.0123), seconds(75.0)
    ('12.3 ms', '75.0 s')
    """
    return f"{significant(value * 1e3)} ms" if value < 1 else f"{significant(value)} s"


def duration(value: float) -> str:
    """Seconds to be waited, in one unit.

    >>> duration(0.2), duration(89.6), duration(100.0), duration(10_000.0)
    ('1 s', '90 s', '2 min', '2.8 h')
    """
    if value <= 90:
        return f"{max(1, round(value))} s"
    return f"{value / 60:.0f} min" if value <= 5400 else f"{value / 3600:.1f} h"


def time_left(left: TimeLeft) -> str:
    """What is still to be waited; an expectation beyond what it takes at most is none.

    >>> time_left(TimeLeft(expected_s=12, most_s=40)), time_left(TimeLeft(expected_s=50, most_s=40)), time_left(TimeLeft(expected_s=5))
    ('about 12 s left, at most 40 s', 'at most 40 s left', 'about 5 s left')
    """
    if left.most_s is None:
        return "" if left.expected_s is None else f"about {duration(left.expected_s)} left"
    if left.expected_s is None or left.expected_s >= left.most_s:
        return f"at most {duration(left.most_s)} left"
    return f"about {duration(left.expected_s)} left, at most {duration(left.most_s)}"


def gibibytes(value: float) -> str:
    """Bytes as GiB."""
    return f"{significant(value / GIB)} GiB"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage; n/a for None."""
    return "n/a" if value is None else f"{100 * value:.{digits}f} %"


def span(interval: Interval, unit: float = 1.0) -> str:
    """Median over its 10-90 % interval, in multiples of `unit`: `41.2` and below it `33.0 to 52.1`."""
    p10, p50, p90 = (significant(value / unit) for value in (interval.p10, interval.p50, interval.p90))
    return f"{p50}\n{p10} to {p90}"


def percent_span(interval: Interval) -> str:
    """The same for a fraction."""
    return f"{100 * interval.p50:.0f} %\n{100 * interval.p10:.0f} to {100 * interval.p90:.0f}"


def count(value: float) -> str:
    """A large count in words.

    >>> count(1.5e13)
    '15.0 trillion'
    """
    for factor, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= factor:
            return f"{significant(value / factor)} {word}"
    return significant(value)
