"""What a local run may change, and what it may not."""

from dataclasses import replace

import numpy as np
import pytest

from bench.cost.calibrate import (
    OWN_LOG_SD,
    TRANSFER_LOG_SD,
    Calibration,
    calibrate,
    evidence_of,
    own_stack,
    slowest_of,
    spread_of,
    usual_site,
)
from bench.cost.coefficients import NAMES
from bench.cost.posterior import condition
from bench.facts.hardware import Architecture, Backend, Precision
from bench.facts.measurement import Estimate
from bench.facts.stack import StackFamily
from tests.round_numbers import CLUSTER, DEVICE, PRIOR, coefficient, figure, measurement, with_coefficients

LOOSE = replace(
    PRIOR,
    coefficients=PRIOR.coefficients | {"kernel_fraction": coefficient(0.8, 0.2, 0.2), "stack_factor": coefficient(1.0, 0.1, 0.1)},
    row_log_sd=figure(0.03),
)
NODE = usual_site(DEVICE, 8)
EXPECTED = float(np.exp(-condition(LOOSE, None).predict(evidence_of(measurement(1.0), DEVICE).table)[0][0]))


def speed(calibration: Calibration) -> float:
    """What is expected of the same run afterwards."""
    return float(np.exp(-calibration.posterior.predict(evidence_of(measurement(1.0), DEVICE).table)[0][0]))


def is_prior(calibration: Calibration) -> bool:
    return calibration.posterior.evidence is None


def test_nothing_measured_changes_nothing_and_says_so() -> None:
    result = calibrate(LOOSE, None, DEVICE, NODE)
    assert is_prior(result)
    assert result.told == ()
    assert "nothing was measured" in result.not_told[0]


def test_invalid_run_tells_nothing() -> None:
    result = calibrate(LOOSE, measurement(1.0, invalid=("parameters did not change",)), DEVICE, NODE)
    assert is_prior(result)
    assert "parameters did not change" in result.not_told[0]


@pytest.mark.parametrize("local", [None, replace(DEVICE, name="other", architecture=Architecture.CDNA)])
def test_another_device_changes_nothing_about_the_matrix_units(local: object) -> None:
    assert local is None or isinstance(local, type(DEVICE))
    result = calibrate(LOOSE, measurement(1.0, device_name="cpu"), local, NODE)
    assert is_prior(result)
    assert "the software's step is valid" in result.told[0]
    # 0.9 to 1.1 s are 2 * 1.2816 standard deviations
    assert "7.8% of the median step" in result.told[1]
    assert result.not_told[0] == "the matrix and memory rates of round, by the run: it was on cpu"
    assert any("links" in sentence for sentence in result.not_told)


def test_a_precision_that_no_target_trains_in_changes_nothing() -> None:
    result = calibrate(LOOSE, measurement(EXPECTED, precision=Precision.FP32), DEVICE, NODE)
    assert is_prior(result)
    assert "in fp32" in result.not_told[0]


def test_run_as_expected_only_narrows() -> None:
    result = calibrate(LOOSE, measurement(EXPECTED), DEVICE, NODE)
    table = evidence_of(measurement(1.0), DEVICE).table
    assert speed(result) == pytest.approx(EXPECTED, rel=1e-6)
    assert result.posterior.predict(table)[1][0] < condition(LOOSE, None).predict(table)[1][0]
    assert any("1.00 of the speed" in sentence for sentence in result.told)


def test_slower_run_lowers_the_expected_speed_but_not_all_the_way() -> None:
    after = speed(calibrate(LOOSE, measurement(0.8 * EXPECTED), DEVICE, NODE))
    assert 0.8 * EXPECTED < after < EXPECTED


def test_noisy_run_moves_less() -> None:
    noisy = Estimate(value=0.8 * EXPECTED, low=0.5 * EXPECTED, high=1.1 * EXPECTED, confidence=0.95, n_steps=5, block_length=1)
    sharp = calibrate(LOOSE, measurement(0.8 * EXPECTED), DEVICE, NODE)
    blurred = calibrate(LOOSE, replace(measurement(1.0), tokens_per_s=noisy), DEVICE, NODE)
    assert speed(sharp) < speed(blurred) < EXPECTED


def test_run_in_another_regime_is_reported_and_not_used() -> None:
    result = calibrate(LOOSE, measurement(0.02 * EXPECTED), DEVICE, NODE)
    assert is_prior(result)
    assert "too far to be the same regime" in result.not_told[0]


def test_our_own_run_is_a_row_of_torch_and_counts_as_another_stacks() -> None:
    assert own_stack(compiled=False).family is StackFamily.TORCH
    assert evidence_of(measurement(1.0), DEVICE).transfer_log_sd == pytest.approx(np.hypot(TRANSFER_LOG_SD, OWN_LOG_SD))


def test_capped_scores_cost_memory_traffic_but_in_the_compiled_kernel_of_a_gpu() -> None:
    def expected_log_s(backend: Backend, *, compiled: bool, cap: float | None) -> float:
        run = replace(measurement(1.0), backend=backend, compiled=compiled)
        evidence = evidence_of(replace(run, model=replace(run.model, attention_softcap=cap)), DEVICE)
        return float(condition(with_coefficients(LOOSE, score_bytes=10.0), None).predict(evidence.table)[0][0])

    for backend, compiled, costs in ((Backend.CUDA, True, False), (Backend.CUDA, False, True), (Backend.CPU, True, True)):
        plain, capped = (expected_log_s(backend, compiled=compiled, cap=cap) for cap in (None, 30.0))
        assert (capped > plain) == costs


def test_a_run_on_a_device_with_the_same_chip_tells_less_surely() -> None:
    kindred = replace(DEVICE, name="kindred", memory_bytes_per_s=figure(2e12))
    own, other = (calibrate(LOOSE, measurement(0.8 * EXPECTED), DEVICE, usual_site(device, 8)) for device in (DEVICE, kindred))
    assert any("which has the chip of kindred, ran at 0.80 of the speed" in sentence for sentence in other.told)
    table = evidence_of(measurement(1.0), DEVICE).table
    cold = condition(LOOSE, None).predict(table)[1][0]
    assert own.posterior.predict(table)[1][0] < other.posterior.predict(table)[1][0] < cold
    foreign = replace(DEVICE, name="other", architecture=Architecture.CDNA)
    assert is_prior(calibrate(LOOSE, measurement(0.8 * EXPECTED), DEVICE, usual_site(foreign, 8)))


def test_the_slowest_of_many_normal_numbers() -> None:
    # Harter 1961, "Expected Values of Normal Order Statistics", table 1: 1.53875 of ten, 2.50759 of a hundred; 3.24144 of a thousand
    # Blom's quantile is within half a per cent of them
    assert [slowest_of(n) for n in (1, 10, 100, 1000)] == pytest.approx([0, 1.53875, 2.50759, 3.24144], rel=0.006)


def test_devices_that_spread_more_than_large_runs_lose_drag_more() -> None:
    prior = with_coefficients(LOOSE, straggler_per_doubling=0.01)
    place = NAMES.index("straggler_per_doubling")

    def drag(spread: float) -> tuple[float, str]:
        run = measurement(EXPECTED)
        step_s = replace(run.step_s, p10=1 - 1.2816 * spread, median=1.0, p90=1 + 1.2816 * spread)
        result = calibrate(prior, replace(run, step_s=step_s), DEVICE, replace(CLUSTER, n_nodes=1024))
        assert spread_of(replace(run, step_s=step_s)) == pytest.approx(spread)
        return float(np.exp(result.posterior.log_theta[place])), next(text for text in result.told if "slowest" in text)

    steady, shaky = drag(0.002), drag(0.1)
    assert steady[0] == pytest.approx(0.01)
    assert "no more than what large runs lose (10.0%)" in steady[1]
    # the largest of 8,192 is 3.8 deviations above the mean: 38 % where ten doublings of 1 % were expected
    assert 0.01 < shaky[0] < 0.038
    assert "the slowest of 8,192 such devices takes 37" in shaky[1]
    assert "more than what large runs lose" in shaky[1]
