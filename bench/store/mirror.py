"""Copying finished points in the background: a queue and a thread, so that no measurement waits for a store."""

import threading
from collections.abc import Callable
from pathlib import Path

from bench.facts.mirror import CopyOutcome
from bench.store.remote import DEADLINE_S, check_uri, point_uri, push

Copy = Callable[[Path, str, float], CopyOutcome]


class Mirror:
    """Points on their way to `results_uri`, one after another.

    mirror = Mirror(results_uri)              # UsageError for a bad URI, before anything is measured
    mirror.push_later(run_dir, "point3")      # returns at once
    outcomes = mirror.drain(deadline_s=60)    # at the end, or in the grace before a preemption; raises nothing

    A copy takes a core for a moment: where the same cores measure, drain before the next launch.
    """

    def __init__(self, results_uri: str, point_deadline_s: float = DEADLINE_S, copy: Copy = push) -> None:
        self.results_uri = check_uri(results_uri)
        self._point_deadline_s = point_deadline_s
        self._copy = copy
        self._waiting: list[tuple[Path, str]] = []
        self._outcomes: dict[str, CopyOutcome] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def push_later(self, run_dir: Path, point: str) -> None:
        """Nothing; the point will be copied. Raises UsageError for a name that leads elsewhere."""
        uri = point_uri(self.results_uri, point)
        with self._changed:
            self._waiting.append((run_dir, uri))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="results-mirror")
                self._thread.start()

    def drain(self, deadline_s: float) -> tuple[CopyOutcome, ...]:
        """What became of every point asked for so far, in that order; those not copied within `deadline_s` say so."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout=deadline_s)
            late = {uri: CopyOutcome(uri=uri, error=f"not copied within {deadline_s:g} s") for _, uri in self._waiting}
            return tuple((self._outcomes | late).values())

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    return
                run_dir, uri = self._waiting[0]
            outcome = self._copy(run_dir, uri, self._point_deadline_s)
            with self._changed:
                self._outcomes[uri] = outcome
                self._waiting.pop(0)
                self._changed.notify_all()
