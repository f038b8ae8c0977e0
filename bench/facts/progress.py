"""How far something long is, in its doer's words, and how long it still takes."""

from typing import Protocol

from bench.facts.figure import fact


@fact
class TimeLeft:
    """Seconds until it is done: as it has gone so far, and at most; None where that is not known."""

    expected_s: float | None = None
    most_s: float | None = None


class Progress(Protocol):
    """Whoever wants to hear of it."""

    def __call__(self, text: str, left: TimeLeft | None = None, /) -> None:
        """Nothing; the words before a colon are the phase."""


def extrapolated(elapsed_s: float, n_done: int, n: int) -> TimeLeft | None:
    """What is left where every one of `n` takes as long as the first ones did; None before any is done.

    >>> extrapolated(10.0, 2, 6).expected_s
    20.0
    """
    return TimeLeft(expected_s=elapsed_s / n_done * (n - n_done)) if n_done else None


def unheard(text: str, left: TimeLeft | None = None, /) -> None:
    """Nothing; nobody listens."""
