"""Two runs beside each other: what differed, and whether one is faster."""

from enum import StrEnum

from bench.facts.figure import Figure, fact, require


class Verdict(StrEnum):
    """What the second run is to the first."""

    FASTER = "faster"
    SLOWER = "slower"
    CANNOT_TELL = "cannot tell"


@fact
class Contrast:
    """Tokens/s of the second run over the first's, less 1, with an interval for what many launches of both would tell."""

    change_fraction: float
    low: float
    high: float
    confidence: float
    noise_floor_fraction: float  # the smallest change that could have been told: half of the interval
    between_launch: Figure  # standard deviation between launches over their mean, measured where several tell
    n_launches: tuple[int, int]
    sought_fraction: float  # the change that should be found: the gate's, or 3 %
    power: float  # chance that such a comparison finds it
    n_launches_needed: int | None  # of each run, that would find it in 95 of 100; None: too many

    def __post_init__(self) -> None:
        low, change, high = self.low, self.change_fraction, self.high
        require(low <= change <= high, f"change {change:g} lies outside its interval {low:g} to {high:g}")

    @property
    def verdict(self) -> Verdict:
        """Faster or slower only where the whole interval is on one side of nothing."""
        if self.low > 0:
            return Verdict.FASTER
        return Verdict.SLOWER if self.high < 0 else Verdict.CANNOT_TELL


@fact
class Difference:
    """One thing that was not the same in both runs, as text; empty where a run does not have it."""

    path: str
    first: str
    second: str


@fact
class Comparison:
    """A run against the first one."""

    first: str
    second: str
    differences: tuple[Difference, ...]
    unlike: tuple[str, ...]  # why these two should not be compared; empty unless it was forced
    contrast: Contrast
    gate_fraction: float | None = None  # the change that is not let pass, below 0

    @property
    def is_gated(self) -> bool:
        """Whether the gate trips: credibly slower, and by at least as much as the gate says."""
        slower = self.contrast.verdict is Verdict.SLOWER
        return slower and self.gate_fraction is not None and self.contrast.change_fraction <= self.gate_fraction
