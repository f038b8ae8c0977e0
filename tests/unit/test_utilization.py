"""Utilization: of the right peak or of none."""

from dataclasses import replace

import pytest

from bench.cost.flops import Convention, flops_per_token
from bench.cost.utilization import mfu, utilization
from bench.errors import ExitCode, InvalidMeasurement
from bench.facts.hardware import Precision
from tests.round_numbers import DEVICE, SMALL, figure, measurement


def test_mfu_is_useful_work_over_the_peak_of_all_devices() -> None:
    # 1,000 tokens/s of 6e9 FLOPs on 2 devices of 10e12 FLOP/s
    assert mfu(1000, 6e9, 2, 10e12) == pytest.approx(0.3)


def test_mfu_above_one_names_the_peak_as_the_suspect() -> None:
    with pytest.raises(InvalidMeasurement, match=r"120% of a peak of 1e\+12 FLOP/s") as error:
        mfu(200, 6e9, 1, 1e12)
    assert error.value.exit_code is ExitCode.INVALID_MEASUREMENT


def test_utilization_knows_both_conventions() -> None:
    use = utilization(measurement(100_000), DEVICE)
    assert use.mfu_causal == pytest.approx(100_000 * flops_per_token(SMALL, Convention.CAUSAL) / 1e15)
    assert use.mfu_full == pytest.approx(100_000 * flops_per_token(SMALL, Convention.FULL) / 1e15)
    assert use.peak_source == "round number"


def test_utilization_is_that_of_one_device() -> None:
    one, two = utilization(measurement(100_000), DEVICE), utilization(measurement(100_000, world_size=2), DEVICE)
    assert two.flops_per_s_per_device == one.flops_per_s_per_device / 2


def test_peak_is_that_of_the_measured_precision() -> None:
    assert utilization(measurement(1.0, precision=Precision.FP16), DEVICE).peak_flops_per_s == 2e15


def test_unknown_device_has_no_peak_and_no_mfu() -> None:
    use = utilization(measurement(1000), None)
    assert (use.peak_flops_per_s, use.mfu_causal, use.mfu_full) == (None, None, None)
    assert use.peak_source.startswith("no ")
    assert use.flops_per_s_per_device > 0


def test_unknown_precision_takes_no_other_peak() -> None:
    assert utilization(measurement(1000, precision=Precision.FP32), DEVICE).mfu_causal is None


def test_impossible_speed_is_no_utilization() -> None:
    slow = replace(DEVICE, peak_flops_per_s={Precision.BF16: figure(1e12)}, matmul_flops_per_s={})
    with pytest.raises(InvalidMeasurement):
        utilization(measurement(1e9), slow)
