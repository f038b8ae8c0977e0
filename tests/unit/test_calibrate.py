"""What a local run may change, and what it may not."""

from dataclasses import replace
from math import log

import pytest

from bench.cost.calibrate import TRANSFER_LOG_SD, calibrate, expected_tokens_per_s
from bench.cost.draws import parameter_of
from bench.facts.figure import Provenance
from bench.facts.hardware import Precision
from bench.facts.measurement import Estimate
from bench.facts.prediction import Prior
from tests.round_numbers import DEVICE, PRIOR, measurement, parameter

LOOSE = replace(PRIOR, kernel_fraction=parameter(0.8, 0.2), other_work_fraction=parameter(1.0, 0.2), stack_fraction=parameter(1.0, 0.1))
EXPECTED = expected_tokens_per_s(LOOSE, measurement(1.0), DEVICE)


def speed(prior: Prior) -> float:
    return expected_tokens_per_s(prior, measurement(1.0), DEVICE)


def test_expected_speed_of_one_device() -> None:
    # 1,024 tokens: products at 1e15 doubled by other work, then 30 bytes per parameter at 1e12 bytes/s
    n_parameters = 8 * (4 * 1024**2 + 3 * 1024 * 2730 + 2 * 1024) + 2 * 1024**2 + 1024
    flops = 6 * (8 * (4 * 1024**2 + 3 * 1024 * 2730 + 1024 * 1024) + 1024**2)
    assert speed(PRIOR) == pytest.approx(1024 / (1024 * flops / 1e15 * 2 + 30 * n_parameters / 1e12))


def test_nothing_measured_changes_nothing_and_says_so() -> None:
    result = calibrate(LOOSE, None, DEVICE, DEVICE)
    assert result.prior == LOOSE
    assert result.told == ()
    assert "nothing was measured" in result.not_told[0]


def test_invalid_run_tells_nothing() -> None:
    result = calibrate(LOOSE, measurement(1.0, invalid=("parameters did not change",)), DEVICE, DEVICE)
    assert result.prior == LOOSE
    assert "parameters did not change" in result.not_told[0]


@pytest.mark.parametrize("local", [None, replace(DEVICE, name="other")])
def test_another_device_changes_nothing_about_the_matrix_units(local: object) -> None:
    assert local is None or isinstance(local, type(DEVICE))
    result = calibrate(LOOSE, measurement(1.0, device_name="cpu"), local, DEVICE)
    assert result.prior == LOOSE
    assert "the software's step is valid" in result.told[0]
    # 0.9 to 1.1 s are 2 * 1.2816 standard deviations
    assert "7.8% of the median step" in result.told[1]
    assert result.not_told[0] == "the matrix and memory rates of round: the run was on cpu"
    assert any("links" in sentence for sentence in result.not_told)


def test_another_precision_changes_nothing() -> None:
    result = calibrate(LOOSE, measurement(EXPECTED, precision=Precision.FP16), DEVICE, DEVICE)
    assert result.prior == LOOSE
    assert "in fp16" in result.not_told[0]


def test_run_as_expected_only_narrows() -> None:
    result = calibrate(LOOSE, measurement(EXPECTED), DEVICE, DEVICE)
    assert result.prior.kernel_fraction.value == pytest.approx(0.8)
    assert result.prior.kernel_fraction.log_sd < 0.2
    assert any("1.00 of the speed" in sentence for sentence in result.told)


def test_surprise_is_shared_by_variance() -> None:
    # variances of the log speed: 0.04 kernel, (1/2)^2 * 0.04 = 0.01 other work, 0.01 stack, 0.01 transfer: 0.07 in all
    result = calibrate(LOOSE, measurement(0.8 * EXPECTED), DEVICE, DEVICE).prior
    assert TRANSFER_LOG_SD == 0.10
    assert log(result.kernel_fraction.value / 0.8) == pytest.approx(0.04 / 0.07 * log(0.8))
    assert log(result.other_work_fraction.value) == pytest.approx(-0.5 * 0.04 / 0.07 * log(0.8))
    assert log(result.stack_fraction.value) == pytest.approx(-0.01 / 0.07 * log(0.8))
    assert result.kernel_fraction.log_sd == pytest.approx(0.2 * (1 - 0.04 / 0.07) ** 0.5)
    assert result.kernel_fraction.provenance is Provenance.MEASURED
    assert result.stack_fraction.provenance is Provenance.ASSUMED


def test_slower_run_lowers_the_expected_speed_but_not_all_the_way() -> None:
    after = speed(calibrate(LOOSE, measurement(0.8 * EXPECTED), DEVICE, DEVICE).prior)
    assert 0.8 * EXPECTED < after < EXPECTED


def test_noisy_run_moves_less() -> None:
    noisy = Estimate(value=0.8 * EXPECTED, low=0.5 * EXPECTED, high=1.1 * EXPECTED, confidence=0.95, n_steps=5, block_length=1)
    sharp = calibrate(LOOSE, measurement(0.8 * EXPECTED), DEVICE, DEVICE).prior
    blurred = calibrate(LOOSE, replace(measurement(1.0), tokens_per_s=noisy), DEVICE, DEVICE).prior
    assert sharp.kernel_fraction.value < blurred.kernel_fraction.value < 0.8


def test_run_in_another_regime_is_reported_and_not_used() -> None:
    result = calibrate(LOOSE, measurement(0.02 * EXPECTED), DEVICE, DEVICE)
    assert result.prior == LOOSE
    assert "too far to be the same regime" in result.not_told[0]


def test_device_with_a_factor_of_its_own_keeps_one_kernel_fraction() -> None:
    factored = replace(LOOSE, kernel_factor_by_device={"round": parameter(0.5, 0.1), "other": parameter(0.7)})
    before = parameter_of(factored, "kernel_fraction", "round")
    assert before.value == pytest.approx(0.4)
    assert before.log_sd == pytest.approx(0.05**0.5)
    after = calibrate(factored, measurement(speed(factored)), DEVICE, DEVICE).prior
    assert parameter_of(after, "kernel_fraction", "round").value == pytest.approx(0.4)
    assert set(after.kernel_factor_by_device) == {"other"}
