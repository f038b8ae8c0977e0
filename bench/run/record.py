"""What a rank saw while measuring, and what is to be said against it."""

import math
from dataclasses import dataclass, field

import numpy as np

from bench import stats
from bench.facts.measurement import Estimate, MeasurementWarning, WarmupEnd, WarningKind
from bench.facts.run import MeasurePolicy

FOREIGN_LOAD_LIMIT = 0.10  # of all cores
SKEW_LIMIT = 0.01  # of the mean step over the median


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
    after: Health = field(init=False)
    warmup_end: WarmupEnd = WarmupEnd.CAP
    warmup_s: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)  # of this rank
    window_s: list[float] = field(default_factory=list)
    steps_per_window: list[int] = field(default_factory=list)
    world_step_s: list[float] = field(default_factory=list)  # mean over ranks
    foreign_load: float = 0.0  # share of this machine's cores that others kept busy


def find_faults(record: Record) -> tuple[str, ...]:
    """Reasons why what was timed is no training."""
    before, after = record.before, record.after
    reasons = (
        (not math.isfinite(after.loss), f"the loss is {after.loss}: not finite"),
        (after.grad_norm == 0, "the gradient norm is 0"),
        (not math.isfinite(after.grad_norm), f"the gradient norm is {after.grad_norm}: not finite"),
        (before.parameter_sums == after.parameter_sums, "no parameter has changed"),
    )
    return tuple(text for broken, text in reasons if broken)


def find_warnings(policy: MeasurePolicy, record: Record, estimate: Estimate) -> tuple[MeasurementWarning, ...]:
    """What could spoil the number."""
    before, after, steps = record.before, record.after, record.world_step_s
    width, late = estimate.half_width_fraction, stats.outliers(steps)
    trend, skew = stats.trend_fraction(steps), float(np.mean(steps) / np.median(steps)) - 1
    still = sum(a == b for a, b in zip(before.parameter_sums, after.parameter_sums, strict=True))
    slowest = max(steps) / float(np.median(steps))
    found = (
        (width > policy.target_ci, WarningKind.WIDE_INTERVAL, f"interval +-{width:.1%} is wider than the target of {policy.target_ci:.1%}"),
        (record.warmup_end is WarmupEnd.CAP, WarningKind.WARMUP_CAPPED, f"not steady after {len(record.warmup_s)} warm-up steps"),
        (len(steps) < policy.min_steps, WarningKind.FEW_STEPS, f"{len(steps)} timed steps; {policy.min_steps} or more tell an interval"),
        (abs(skew) > SKEW_LIMIT, WarningKind.SKEWED_STEPS, f"the mean step is {skew:+.1%} off the median: tokens/s follows the mean"),
        (
            bool(late),
            WarningKind.OUTLIERS,
            f"{len(late)} of {len(steps)} steps are late, the worst {slowest:.1f} x the median; all are counted",
        ),
        (trend != 0, WarningKind.TREND, f"steps change by {trend:+.1%} from first to last"),
        (
            record.foreign_load > FOREIGN_LOAD_LIMIT,
            WarningKind.BUSY_MACHINE,
            f"other processes kept {record.foreign_load:.0%} of the cores busy",
        ),
        (0 < still < len(after.parameter_sums), WarningKind.UNCHANGED_PARAMETERS, f"{still} parameter tensors have not changed"),
    )
    return tuple(MeasurementWarning(kind=kind, text=text) for holds, kind, text in found if holds)
