"""When measuring ends. Knows no clock: it is asked after every window, so a made-up signal can drive it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench import stats
from bench.facts.measurement import MeasureEnd
from bench.facts.progress import TimeLeft
from bench.facts.run import MeasurePolicy

WINDOW_S = 2.0  # between two synchronised edges
MOST_STEPS_PER_WINDOW = 1000
FIRST_LOOK_STEPS = 64  # where steps are short; two looks are then over at 96
LOOK_GROWTH = 1.5
LOOKS_IN_A_ROW = 2


@dataclass
class StoppingRule:
    """Steps of the next window, until the interval is narrow enough or the budget is spent.

    Whoever looks at an interval after every window stops at a lucky one: the interval then holds the truth less often than it
    says. So it is looked at only when the steps have grown by half, and two looks in a row must agree.
    Source: Chow and Robbins 1965 (fixed-width intervals by sequential sampling); the two figures by the simulation in
    tests/unit/test_stopping.py.
    """

    policy: MeasurePolicy
    tokens_per_step: float
    typical_step_s: float
    end: MeasureEnd | None = None
    _narrow: int = 0
    _look_at: int = field(init=False)

    def __post_init__(self) -> None:
        self._look_at = self.policy.steps or max(self.policy.min_steps, min(FIRST_LOOK_STEPS, self._in_a_window()))

    def next_window(self, step_s: Sequence[float]) -> int:
        """Steps of the next window after these, all of them timed; 0 where measuring has ended."""
        if len(step_s) >= self._look_at:
            self._look(step_s)
        if self.end is None and self.policy.steps is None and self._is_spent(step_s):
            self.end = MeasureEnd.BUDGET
        return 0 if self.end else min(self._in_a_window(), self._look_at - len(step_s))

    def time_left(self, step_s: Sequence[float]) -> TimeLeft:
        """What measuring still takes after these steps: as their spread goes, and at most.

        The interval narrows with the root of the steps, and is looked at where the rule looks.
        """
        mean_s, n = sum(step_s) / len(step_s), len(step_s)
        if self.policy.steps is not None:
            return TimeLeft(expected_s=(self.policy.steps - n) * mean_s)
        most_s = max(self.policy.budget_s - sum(step_s), (self.policy.min_steps - n) * mean_s, 0.0)
        width = stats.throughput(step_s, self.tokens_per_step, self.policy.confidence).half_width_fraction
        return TimeLeft(expected_s=(self._end_of_looks(n * (width / self.policy.target_ci) ** 2) - n) * mean_s, most_s=most_s)

    def _end_of_looks(self, n_narrow: float) -> int:
        """Steps at which enough looks in a row will have seen an interval that is narrow from `n_narrow` steps on."""
        look, narrow = self._look_at, self._narrow
        while (narrow := narrow + 1 if look >= n_narrow else 0) < LOOKS_IN_A_ROW:
            look = math.ceil(LOOK_GROWTH * look)
        return look

    def _look(self, step_s: Sequence[float]) -> None:
        if self.policy.steps is not None:
            self.end = MeasureEnd.STEPS
            return
        estimate = stats.throughput(step_s, self.tokens_per_step, self.policy.confidence)
        self._narrow = self._narrow + 1 if estimate.half_width_fraction <= self.policy.target_ci else 0
        self._look_at = math.ceil(LOOK_GROWTH * len(step_s))
        if self._narrow == LOOKS_IN_A_ROW:
            self.end = MeasureEnd.TARGET

    def _is_spent(self, step_s: Sequence[float]) -> bool:
        return len(step_s) >= self.policy.min_steps and sum(step_s) >= self.policy.budget_s

    def _in_a_window(self) -> int:
        return max(2, min(MOST_STEPS_PER_WINDOW, math.ceil(WINDOW_S / self.typical_step_s)))
