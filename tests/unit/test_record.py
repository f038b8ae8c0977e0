"""What could spoil a number is said; what is no training is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bench import stats
from bench.facts.breakdown import DeviceTelemetry, StepBreakdown, Straggler, Telemetry
from bench.facts.measurement import WarmupEnd, WarningKind
from bench.facts.run import MeasurePolicy
from bench.run.record import Health, Record, find_faults, find_warnings

POLICY = MeasurePolicy(
    steps=None,
    target_ci=0.02,
    confidence=0.95,
    budget_s=60,
    min_steps=20,
    warmup_min_steps=6,
    warmup_max_steps=60,
    warmup_tolerance=0.03,
)
HEALTHY = Health(loss=6.9, grad_norm=1.0, parameter_sums=(1.0, 2.0))
TRAINED = Health(loss=5.0, grad_norm=0.5, parameter_sums=(1.1, 2.1))
QUIET = [1 + 0.001 * math.sin(7 * i) for i in range(60)]


def record(steps: list[float] = QUIET, after: Health = TRAINED, end: WarmupEnd = WarmupEnd.STEADY, foreign: float = 0.0) -> Record:
    seen = Record(before=HEALTHY, first_s=3.0, warmup_end=end, warmup_s=[2.0, 1.0], world_step_s=steps, foreign_load=foreign)
    seen.after = after
    return seen


def kinds(seen: Record) -> set[WarningKind]:
    return {w.kind for w in find_warnings(POLICY, seen, stats.throughput(seen.world_step_s, 1.0, 0.95))}


def test_a_quiet_run_of_a_healthy_model_has_nothing_to_be_said_against_it() -> None:
    assert kinds(record()) == set()
    assert find_faults(record()) == ()


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (replace(TRAINED, loss=math.nan), "not finite"),
        (replace(TRAINED, grad_norm=0.0), "gradient norm is 0"),
        (replace(TRAINED, grad_norm=math.inf), "not finite"),
        (replace(TRAINED, parameter_sums=HEALTHY.parameter_sums), "no parameter has changed"),
    ],
)
def test_what_is_no_training_is_a_fault(after: Health, words: str) -> None:
    faults = find_faults(record(after=after))
    assert len(faults) == 1
    assert words in faults[0]


NOISY = list(1 + 0.2 * np.random.default_rng(1).standard_normal(20))


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (record(NOISY), WarningKind.WIDE_INTERVAL),
        (record(end=WarmupEnd.CAP), WarningKind.WARMUP_CAPPED),
        (record(QUIET[:10]), WarningKind.FEW_STEPS),
        (record([*QUIET, 3.0]), WarningKind.SKEWED_STEPS),
        (record([*QUIET, 3.0]), WarningKind.OUTLIERS),
        (record([s + i / 500 for i, s in enumerate(QUIET)]), WarningKind.TREND),
        (record(foreign=0.4), WarningKind.BUSY_MACHINE),
        (record(after=replace(TRAINED, parameter_sums=(1.0, 2.1))), WarningKind.UNCHANGED_PARAMETERS),
    ],
)
def test_what_could_spoil_a_number_is_warned_of(seen: Record, kind: WarningKind) -> None:
    assert kind in kinds(seen)


def broken_down(own_s: float) -> StepBreakdown:
    return StepBreakdown(n_steps=10, exposed_by="here", straggler=Straggler(rank=3, host="node7", own_s=own_s, median_own_s=1.0))


def told(**changes: object) -> Telemetry:
    quiet = DeviceTelemetry(
        rank=2,
        host="node7",
        source="NVML",
        n_samples=100,
        power_w=600.0,
        peak_power_w=700.0,
        energy_j=6000.0,
        clock_hz=1.9e9,
        lowest_clock_hz=1.8e9,
        peak_temperature_c=60.0,
        throttled_fraction=0.0,
        throttle_reasons=(),
        n_foreign_processes=0,
    )
    return Telemetry(devices=(replace(quiet, **changes),), power_w=600.0, energy_j=6000.0, energy_j_per_token=1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("breakdown", "telemetry", "kind", "words"),
    [
        (broken_down(1.2), None, WarningKind.SLOW_RANK, "rank 3 on node7 takes 1.20 x"),
        (
            None,
            told(throttled_fraction=0.3, throttle_reasons=("power cap",)),
            WarningKind.THROTTLED,
            "in 30% of the looks at it: power cap",
        ),
        (None, told(n_foreign_processes=2), WarningKind.SHARED_DEVICE, "2 other processes use the device of rank 2 on node7"),
    ],
)
def test_slow_ranks_and_hampered_devices_are_named(
    breakdown: StepBreakdown | None, telemetry: Telemetry | None, kind: WarningKind, words: str
) -> None:
    seen = record()
    seen.breakdown, seen.telemetry = breakdown, telemetry
    found = find_warnings(POLICY, seen, stats.throughput(seen.world_step_s, 1.0, 0.95))
    assert [w.kind for w in found] == [kind]
    assert words in found[0].text


def test_alike_ranks_and_free_devices_are_not_warned_of() -> None:
    seen = record()
    seen.breakdown, seen.telemetry = broken_down(1.05), told(throttled_fraction=0.02, throttle_reasons=("power cap",))
    assert kinds(seen) == set()


def test_a_foreign_load_is_that_of_the_busiest_machine() -> None:
    seen = record(foreign=0.4)
    seen.foreign_host = "node7"
    assert "40% of the cores of node7" in find_warnings(POLICY, seen, stats.throughput(seen.world_step_s, 1.0, 0.95))[0].text
