"""Runs beside each other: what differed, whether one is faster, and whether a gate lets it pass."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.codec import encode
from bench.config.compose import compose
from bench.config.schema import Config
from bench.contrast import SOUGHT_FRACTION, contrast
from bench.errors import UsageError
from bench.facts.comparison import Comparison, Difference
from bench.facts.measurement import Estimate, Measurement
from bench.facts.result import Result
from bench.store.results import PARTIAL, RESULT, read_result

CONFIG_OF_A_RUN = ("model", "device", "plan", "train", "measure")  # what else is composed does not reach a measurement
# names of one launch, which say nothing of its speed
NOT_A_DIFFERENCE = re.compile(r"environment\.(started_at|variables\.(TORCHELASTIC_|SLURM_(JOB_?ID|STEP|TASK_PID|SUBMIT|JOB_NAME)))")
TELLING_CLOCK_FRACTION = 0.01  # clocks closer than this are the same


@dataclass(frozen=True)
class NamedRun:
    """A kept run under the name that the user gave it."""

    name: str
    result: Result
    is_partial: bool

    @property
    def launches(self) -> tuple[Estimate, ...]:
        """Throughput of each launch."""
        several: Sequence[Measurement] = self.result.launches or (self.result.measurement,)
        return tuple(m.tokens_per_s for m in several)


def compare(*arguments: str, force: bool = False) -> tuple[Comparison, ...]:
    """Every further run against the first: run directories or their result.json, and overrides (`gate=-3%`, `compare.noise_floor.value`).

    Raises UsageError for runs that are unlike in model, devices or their number, or no whole valid measurement, unless `force`.
    """
    names = [text for text in arguments if "=" not in text or Path(text).exists()]
    config = compose([text for text in arguments if text not in names])
    if len(names) < 2:
        raise UsageError(f"compare: {len(names)} run given; it takes two or more run directories, as in bench compare runs/a runs/b")
    first, *others = [named_run(name) for name in names]
    return tuple(comparison(first, other, config, force) for other in others)


def comparison(first: NamedRun, second: NamedRun, config: Config, force: bool = False) -> Comparison:
    """The second run against the first. Raises UsageError where they are unlike, unless `force`."""
    reasons = tuple(unlike(first, second))
    if reasons and not force:
        raise UsageError(f"{second.name} against {first.name}: {reasons[0]}; compare like with like, or add --force")
    gate = gate_fraction(config.gate)
    return Comparison(
        first=first.name,
        second=second.name,
        differences=tuple(differences(first.result, second.result)),
        unlike=reasons,
        contrast=contrast(first.launches, second.launches, config.compare.noise_floor, gate or SOUGHT_FRACTION),
        gate_fraction=gate,
    )


def named_run(name: str) -> NamedRun:
    """The run in a directory, in a result.json, or in the only folder of a sweep. Raises UsageError where there is none, or several."""
    path = Path(name)
    if not path.is_dir() or (path / RESULT).exists():
        return NamedRun(name, read_result(path), is_partial=path.name == PARTIAL)
    if (path / PARTIAL).exists():
        return NamedRun(name, read_result(path / PARTIAL), is_partial=True)
    points = sorted(file.parent for file in path.glob(f"*/{RESULT}"))
    if len(points) > 1:
        raise UsageError(f"{name} holds {len(points)} runs; name one of them: {', '.join(map(str, points[:4]))}")
    return NamedRun(name, read_result(points[0] if points else path), is_partial=False)


def gate_fraction(gate: str | float | None) -> float | None:
    """The change that is not let pass, as a fraction below 0. Raises UsageError where it is none."""
    if gate is None:
        return None
    text = str(gate).strip()
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise UsageError(f"gate: {gate} given; it is a loss of speed, as in gate=-3%") from None
    if not -1 < value < 0:
        raise UsageError(f"gate: {gate} given; it is the loss that is not let pass, between -100% and 0, as in gate=-3%")
    return value


def unlike(first: NamedRun, second: NamedRun) -> Iterator[str]:
    """Reasons why one of two runs being faster would mean nothing."""
    a, b = first.result.measurement, second.result.measurement
    shapes = [{**encode(m.model), "name": "", "source": ""} for m in (a, b)]
    if field := next((key for key in shapes[0] if shapes[0][key] != shapes[1][key]), None):
        yield f"another model ({field} {shapes[1][field]}, not {shapes[0][field]})"
    if (a.backend, a.device_name) != (b.backend, b.device_name):
        yield f"other devices ({b.device_name}, not {a.device_name})"
    if a.world_size != b.world_size:
        yield f"another number of devices ({b.world_size}, not {a.world_size})"
    for run in (first, second):
        if run.result.measurement.invalid:
            yield f"{run.name} is no valid measurement ({run.result.measurement.invalid[0]})"
        if run.is_partial or run.result.measurement.is_partial:
            yield f"{run.name} was cut short"


def differences(first: Result, second: Result) -> Iterator[Difference]:
    """What was not the same: configuration, versions, host, driver, variables, and clocks where they are known."""
    yield from _between(_facts_of(first), _facts_of(second))
    clocks = [_clock_hz(result) for result in (first, second)]
    if clocks[0] and clocks[1] and abs(clocks[1] / clocks[0] - 1) > TELLING_CLOCK_FRACTION:
        yield Difference(path="telemetry.clock_hz", first=str(clocks[0]), second=str(clocks[1]))


def _between(first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[Difference]:
    for path in {**first, **second}:
        a, b = first.get(path, ""), second.get(path, "")
        if a != b and not NOT_A_DIFFERENCE.match(path):
            yield Difference(path=path, first=a, second=b)


def _facts_of(result: Result) -> dict[str, str]:
    config = {key: value for key, value in result.config.items() if key in CONFIG_OF_A_RUN}
    return {"bench_version": result.bench_version, **flat(config), **flat({"environment": encode(result.environment)})}


def flat(plain: Any, path: str = "") -> dict[str, str]:
    """Every leaf of a nested mapping as text, under its path."""
    if not isinstance(plain, dict):
        return {path: ", ".join(map(str, plain)) if isinstance(plain, list) else str(plain)}
    return {k: v for key, value in plain.items() for k, v in flat(value, f"{path}.{key}" if path else str(key)).items()}


def _clock_hz(result: Result) -> float | None:
    telemetry = result.measurement.telemetry
    known = [d.clock_hz for d in telemetry.devices if d.clock_hz] if telemetry else []
    return sum(known) / len(known) if known else None
