"""What a rank saw while measuring, and what is to be said against it."""

import math
from dataclasses import dataclass, field

import numpy as np

from bench import stats
from bench.facts.breakdown import MemoryUse, StepBreakdown, Telemetry
from bench.facts.checkpoint import TrainingLog
from bench.facts.measurement import Estimate, MeasureEnd, MeasurementWarning, WarmupEnd, WarningKind
from bench.facts.run import MeasurePolicy

FOREIGN_LOAD_LIMIT = 0.10  # of all cores
SKEW_LIMIT = 0.01  # of the mean step over the median
SLOW_RANK_LIMIT = 1.10  # own work of the slowest rank over that of the median rank
THROTTLED_LIMIT = 0.05  # of the looks at a device


@dataclass(frozen=True)
class Health:
    """Whether training really happens."""

    loss: float
    grad_norm: float
    parameter_sums: tuple[float, ...]  # of each parameter tensor, in float64


@dataclass
class Record:
    """Everything that grows during a measurement."""

    before: Health
    first_s: float  # of the step that told it, the first of all: it compiles, allocates and chooses kernels
    after: Health = field(init=False)
    warmup_end: WarmupEnd = WarmupEnd.CAP
    warmup_s: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)  # of this rank
    window_s: list[float] = field(default_factory=list)
    steps_per_window: list[int] = field(default_factory=list)
    world_step_s: list[float] = field(default_factory=list)  # mean over ranks
    measure_end: MeasureEnd | None = None
    foreign_load: float = 0.0  # share of a machine's cores that others kept busy; the largest of all machines
    foreign_host: str = ""  # and which machine that was
    breakdown: StepBreakdown | None = None
    memory: tuple[MemoryUse, ...] = ()
    telemetry: Telemetry | None = None
    training: TrainingLog | None = None
    is_metered: bool = False  # whether waits stood for computing


def find_faults(record: Record) -> tuple[str, ...]:
    """Reasons why what was timed is no training."""
    before, after = record.before, record.after
    if record.is_metered:
        return ("metered: waits of measured length stood for computing, communication was real (measure.meter)",)
    reasons = (
        (not math.isfinite(after.loss), f"the loss is {after.loss}: not finite"),
        (after.grad_norm == 0, "the gradient norm is 0"),
        (not math.isfinite(after.grad_norm), f"the gradient norm is {after.grad_norm}: not finite"),
        (before.parameter_sums == after.parameter_sums, "no parameter has changed"),
    )
    return tuple(text for broken, text in reasons if broken)


def finite(value: float) -> float | None:
    """The value, or None for what no JSON can hold."""
    return value if math.isfinite(value) else None


def find_warnings(policy: MeasurePolicy, record: Record, estimate: Estimate) -> tuple[MeasurementWarning, ...]:
    """What could spoil the number."""
    before, after, steps = record.before, record.after, record.world_step_s
    width, late = estimate.half_width_fraction, stats.outliers(steps)
    trend, skew = stats.trend_fraction(steps), float(np.mean(steps) / np.median(steps)) - 1
    still = sum(a == b for a, b in zip(before.parameter_sums, after.parameter_sums, strict=True))
    slowest = max(steps) / float(np.median(steps))
    where = f" of {record.foreign_host}" if record.foreign_host else ""
    found = (
        (width > policy.target_ci, WarningKind.WIDE_INTERVAL, f"interval +-{width:.2%} is wider than the target of {policy.target_ci:.2%}"),
        (record.warmup_end is WarmupEnd.CAP, WarningKind.WARMUP_CAPPED, f"not steady after {len(record.warmup_s)} warm-up steps"),
        (len(steps) < policy.min_steps, WarningKind.FEW_STEPS, f"{len(steps)} timed steps; {policy.min_steps} or more tell an interval"),
        (abs(skew) > SKEW_LIMIT, WarningKind.SKEWED_STEPS, f"the mean step is {skew:+.1%} off the median: tokens/s follows the mean"),
        (
            bool(late),
            WarningKind.OUTLIERS,
            f"{len(late)} of {len(steps)} steps are late, the worst, number {int(np.argmax(steps))}, {slowest:.2f} x the median; "
            "all are counted",
        ),
        (trend != 0, WarningKind.TREND, f"steps change by {trend:+.1%} from first to last"),
        (
            record.foreign_load > FOREIGN_LOAD_LIMIT,
            WarningKind.BUSY_MACHINE,
            f"other processes kept {record.foreign_load:.0%} of the cores{where} busy",
        ),
        (0 < still < len(after.parameter_sums), WarningKind.UNCHANGED_PARAMETERS, f"{still} parameter tensors have not changed"),
    )
    told = tuple(MeasurementWarning(kind=kind, text=text) for holds, kind, text in found if holds)
    return (*told, *_slow_rank(record.breakdown), *_device_warnings(record.telemetry))


def _slow_rank(breakdown: StepBreakdown | None) -> tuple[MeasurementWarning, ...]:
    slow = breakdown.straggler if breakdown else None
    if slow is None or slow.ratio < SLOW_RANK_LIMIT:
        return ()
    text = f"rank {slow.rank} on {slow.host} takes {slow.ratio:.2f} x the median rank's time for its own work: all ranks wait for it"
    return (MeasurementWarning(kind=WarningKind.SLOW_RANK, text=text),)


def _device_warnings(telemetry: Telemetry | None) -> tuple[MeasurementWarning, ...]:
    found = []
    for d in telemetry.devices if telemetry else ():
        if (d.throttled_fraction or 0.0) > THROTTLED_LIMIT:
            text = f"the device of rank {d.rank} on {d.host} was throttled in {d.throttled_fraction:.0%} of the looks at it: "
            found.append(MeasurementWarning(kind=WarningKind.THROTTLED, text=text + ", ".join(d.throttle_reasons)))
        if d.n_foreign_processes:
            text = f"{d.n_foreign_processes} other processes use the device of rank {d.rank} on {d.host}"
            found.append(MeasurementWarning(kind=WarningKind.SHARED_DEVICE, text=text))
    return tuple(found)
