"""What one H200 gave, as kept in benchmarks/h200 and conf/device/profile: the figures that documents tell of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.codec import decode
from bench.config.compose import devices
from bench.config.profiles import find_profile
from bench.cost.utilization import utilization
from bench.facts.accuracy import Composed
from bench.facts.hardware import Precision
from bench.facts.measurement import Measurement
from bench.facts.profile import Cache, ProbeKind
from bench.forecast import backtest

KEPT = Path(__file__).parents[2] / "benchmarks" / "h200"
SLICES = ("llama3_8b", "llama3_70b", "llama3_405b", "gpt3_175b", "grok1_314b")


def measured(name: str) -> Measurement:
    return decode(Measurement, read(name)["measurement"])


def read(name: str) -> Any:
    return json.loads((KEPT / name).read_text(encoding="utf-8"))


def test_a_compiled_model_of_a_billion_uses_half_of_the_peak() -> None:
    h200 = next(device for device in devices() if "NVIDIA H200" in device.torch_names)
    for launch in (0, 1):
        assert (utilization(measured(f"dense_1b_launch{launch}.json"), h200).mfu_causal or 0.0) > 0.55


def test_launches_agree_and_tell_power_clock_and_temperature() -> None:
    first, second = (measured(f"dense_1b_launch{launch}.json") for launch in (0, 1))
    assert first.tokens_per_s.low < second.tokens_per_s.high
    assert second.tokens_per_s.low < first.tokens_per_s.high
    assert first.telemetry is not None
    told = first.telemetry.devices[0]
    assert None not in (told.power_w, told.clock_hz, told.peak_temperature_c)


@pytest.mark.parametrize("name", ["dense_1b_launch0.json", "run_without_arguments.json", "grok1_d8_l8.json", "llama3_70b_3_layers.json"])
def test_the_energy_counter_agrees_with_sampled_power(name: str) -> None:
    run = measured(name)
    assert run.telemetry is not None
    told, timed_s = run.telemetry.devices[0], sum(run.ranks[0].window_s)
    assert run.telemetry.energy_j_per_token is not None
    n_tokens = run.tokens_per_step * len(run.ranks[0].step_s)
    assert (told.power_w or 0.0) * timed_s / n_tokens == pytest.approx(run.telemetry.energy_j_per_token, rel=0.05)


def test_the_kept_profile_is_of_this_device_and_of_sane_rates() -> None:
    profile = find_profile("NVIDIA H200")
    assert profile is not None
    h200 = next(device for device in devices() if "NVIDIA H200" in device.torch_names)
    for probe in profile.probes:
        if probe.kind is ProbeKind.MATMUL and probe.precision in h200.peak_flops_per_s:
            assert probe.rate_per_s < h200.peak_flops_per_s[probe.precision].value, str(probe)
        if probe.kind in (ProbeKind.COPY, ProbeKind.TRIAD) and probe.cache is Cache.BEYOND:
            assert 0.8 < probe.rate_per_s / h200.memory_bytes_per_s.value < 1.0
    held_back = [load for load in profile.loads if load.telemetry.throttle_reasons and Precision.BF16.value in load.what]
    assert held_back, "products in bf16 draw more than the device may"


@pytest.mark.slow
def test_published_runs_are_composed_from_profile_and_slices() -> None:
    slices = ",".join(str(KEPT / f"slice_{name}.json") for name in SLICES)
    score = backtest("protocol=slices", f"slices=[{slices}]")
    assert isinstance(score, Composed)
    assert score.sliced is not None
    assert score.sliced_cold is not None
    assert score.sliced.n >= 20
    assert score.sliced.median <= 0.08
    assert score.sliced.median < score.sliced_cold.median
    assert score.composed.median <= 0.08
