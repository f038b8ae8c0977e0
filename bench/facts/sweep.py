"""A list of measurements, each with what came of it."""

from bench.errors import ExitCode
from bench.facts.attempt import Status
from bench.facts.figure import fact, require
from bench.facts.measurement import Estimate


@fact
class SweepPoint:
    """One configuration of a sweep, by the overrides that make it."""

    name: str  # of its folder
    overrides: tuple[str, ...]

    def __post_init__(self) -> None:
        safe = self.name and not self.name.startswith(".") and all(c.isalnum() or c in "._-" for c in self.name)
        require(bool(safe), f"point {self.name!r} is no name of a folder; use letters, digits, dot, dash and underscore")


@fact
class SweepRow:
    """What came of one point."""

    point: SweepPoint
    status: Status | None  # None: not begun
    tokens_per_s: Estimate | None
    step_s: float | None  # median
    n_launches: int
    n_warnings: int


@fact
class Sweep:
    """sweep.json: every point, in the order given."""

    rows: tuple[SweepRow, ...]

    @property
    def n_measured(self) -> int:
        """Points with a valid measurement."""
        return sum(row.status is not None and row.status.exit_code == ExitCode.OK for row in self.rows)
