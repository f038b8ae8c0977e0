"""A finished result for experiment trackers, through accelerate. Nothing here runs while something is timed, nothing fails a run."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from bench.facts.measurement import Measurement, MeasurementWarning, WarningKind
from bench.facts.result import Result

DEADLINE_S = 60.0  # for one tracker, whose server may not answer
FOLDER = "trackers"  # in the run directory, for those that write files
PROJECT = "proxybench"


class Tracker(Protocol):
    """What accelerate's trackers have in common."""

    def start(self) -> None:
        """Nothing; the tracker is ready."""

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Nothing; the configuration is kept."""

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        """Nothing; the values are kept."""

    def finish(self) -> None:
        """Nothing; all is written."""


def track(
    result: Result, names: Sequence[str], run_dir: Path, make: Callable[[str, Path], Tracker] | None = None
) -> list[MeasurementWarning]:
    """A warning for every tracker that did not take the result: step times as a series, and the summary."""
    found = []
    for name in names:
        if reason := _in_time(lambda name=name: _tell(result, (make or open_tracker)(name, run_dir)), DEADLINE_S):  # type: ignore[misc]
            found.append(MeasurementWarning(kind=WarningKind.TRACKER, text=f"{name} was not told of this run: {reason}"))
    return found


def open_tracker(name: str, run_dir: Path) -> Tracker:
    """accelerate's tracker of that name. Raises ModuleNotFoundError where its package is not installed."""
    if name not in {str(getattr(known, "value", known)) for known in get_available_trackers()}:
        raise ModuleNotFoundError(f"its package is not installed; pip install {name}")
    PartialState(cpu=True)  # what accelerate's trackers ask whether this is the main process; ranks have ended by now
    kind = LOGGER_TYPE_TO_CLASS[name]
    logs = {"logging_dir": str(run_dir / FOLDER)} if kind.requires_logging_directory else {}
    tracker: Tracker = kind(PROJECT, **logs)
    return tracker


def _tell(result: Result, tracker: Tracker) -> None:
    tracker.start()
    tracker.store_init_configuration(_flat(result.config))
    for step, values in enumerate(_series(result.launches or (result.measurement,))):
        tracker.log(values, step=step)
    tracker.log(summary(result), step=0)
    tracker.finish()


def _series(launches: Sequence[Measurement]) -> Iterator[dict[str, float]]:
    """Step times, mean over ranks, by timed step; of every launch under its number where there are several."""
    steps = [[sum(s) / len(s) for s in zip(*(r.step_s for r in m.ranks), strict=False)] for m in launches]
    names = [f"step_s/launch{k}" if len(launches) > 1 else "step_s" for k in range(len(launches))]
    for i in range(max(map(len, steps))):
        yield {name: own[i] for name, own in zip(names, steps, strict=True) if i < len(own)}


def summary(result: Result) -> dict[str, float]:
    """The figures that a table of runs would have; what is not known is left out."""
    m, u = result.measurement, result.utilization
    figures = {
        "tokens_per_s": m.tokens_per_s.value,
        "tokens_per_s_low": m.tokens_per_s.low,
        "tokens_per_s_high": m.tokens_per_s.high,
        "tokens_per_s_per_device": m.tokens_per_s_per_device,
        "step_s_median": m.step_s.median,
        "flops_per_s_per_device": u.flops_per_s_per_device,
        "mfu_causal_fraction": u.mfu_causal,
        "mfu_full_fraction": u.mfu_full,
        "loss_last": m.loss_last,
        "peak_reserved_bytes": max(r.peak_reserved_bytes for r in m.ranks),
        "power_w": m.telemetry.power_w if m.telemetry else None,
        "n_warnings": len(result.warnings),
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def _flat(plain: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Every leaf of the configuration under its path; trackers take no nested values."""
    leaves: dict[str, Any] = {}
    for key, value in plain.items():
        here = f"{path}.{key}" if path else str(key)
        leaves |= _flat(value, here) if isinstance(value, dict) else {here: value if isinstance(value, bool | int | float) else str(value)}
    return leaves


def _in_time(task: Callable[[], None], deadline_s: float) -> str:
    """Why the task did not end well; empty where it did. It is left alone where it takes too long."""
    reasons: list[str] = []

    def attempt() -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001  # whatever a tracker raises, the run is measured
            reasons.append((str(error).strip().splitlines() or [type(error).__name__])[0])

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(deadline_s)
    return f"no answer within {deadline_s:g} s" if thread.is_alive() else "".join(reasons)
