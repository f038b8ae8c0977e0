"""A run that fails and restarts, event by event: the check on the closed form, and what that leaves out (spares that run out)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.cost.goodput import Saving

Array = NDArray[np.float64]
MOST_EVENTS = 200_000  # of one sample; more failures than that are a run that gets nowhere


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """What strikes a run. Seconds."""

    mtbf_s: float
    downtime_s: float
    hardware_fraction: float  # of the failures: those that take a node away for `repair_s`
    repair_s: float
    n_spares: int


def simulated_fractions(interval_s: float, cost: Saving, hazard: Hazard, *, wall_s: float, n_samples: int, seed: int) -> Array:
    """The effective fraction of so many runs of `wall_s` seconds, drawn with a fixed seed.

    A failure throws a run back to its last safe snapshot; while it restarts it may fail again; where no spare is left it
    waits for the first repair. Assumes that the job begins with all spares at hand.
    """
    state = _Runs(n_samples, hazard, np.random.default_rng(seed))
    segment = interval_s + cost.blocking_s
    for _ in range(MOST_EVENTS):
        if not (state.clock < wall_s).any():
            break
        state.train(segment, interval_s, cost.lag_s, wall_s)
        state.restart(wall_s)
    return np.asarray(state.useful / wall_s)


class _Runs:
    """Many runs side by side; those that are over stand still."""

    def __init__(self, n: int, hazard: Hazard, rng: np.random.Generator) -> None:
        self.clock, self.useful = np.zeros(n), np.zeros(n)
        self._hazard, self._rng = hazard, rng
        # times at which nodes come back, oldest first: as many may be away as there are spares
        self._back = np.zeros((n, hazard.n_spares + 1))
        self._place = np.zeros(n, dtype=np.intp)

    def train(self, segment: float, interval: float, lag: float, wall_s: float) -> None:
        """Nothing; every run has trained until its next failure or the end."""
        lived = self._rng.exponential(self._hazard.mtbf_s, len(self.clock))
        left = np.maximum(wall_s - self.clock, 0)
        ends = lived >= left
        lived = np.minimum(lived, left)
        whole = np.floor(lived / segment)
        since = lived - whole * segment  # since the last snapshot: what was in flight then is not yet safe
        kept = np.where((since < lag) & (whole > 0) & ~ends, whole - 1, whole) * interval
        # the end of the window cuts no work off: what is under way counts
        self.useful += np.where(ends, whole * interval + np.minimum(since, interval), kept)
        self.clock += lived

    def restart(self, wall_s: float) -> None:
        """Nothing; every run that failed is up again, after waiting for a node where no spare was left."""
        n, hazard = len(self.clock), self._hazard
        running = self.clock < wall_s
        self.clock = np.where(running, self.clock + self._down(n), self.clock)
        rows = np.flatnonzero(running & (self._rng.random(n) < hazard.hardware_fraction))
        self._back[rows, self._place[rows]] = self.clock[rows] + hazard.repair_s
        self._place[rows] = (self._place[rows] + 1) % (hazard.n_spares + 1)
        self.clock[rows] = np.maximum(self.clock[rows], self._back[rows, self._place[rows]])

    def _down(self, n: int) -> Array:
        """Seconds of a restart with all its repetitions: geometric many attempts that a failure cut short, and one whole."""
        mean, whole = self._hazard.mtbf_s, self._hazard.downtime_s
        total = np.zeros(n)
        open_ = np.ones(n, dtype=bool)
        while open_.any():
            lived = self._rng.exponential(mean, n)
            total += np.where(open_, np.minimum(lived, whole), 0.0)
            open_ &= lived < whole
        return total
