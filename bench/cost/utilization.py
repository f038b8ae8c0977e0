"""How much of a device's dense peak a training step uses."""

from bench.cost.flops import Convention, flops_per_token
from bench.errors import InvalidMeasurement
from bench.facts.hardware import Device
from bench.facts.measurement import Measurement, Utilization


def mfu(tokens_per_s: float, flops_per_token: float, n_devices: int, peak_flops_per_s: float) -> float:
    """Model FLOP/s of the whole world over its peak. Raises InvalidMeasurement above 1: no device exceeds its peak.

    Source: Chowdhery et al. 2022, arXiv 2204.02311, appendix B.
    """
    fraction = tokens_per_s * flops_per_token / (n_devices * peak_flops_per_s)
    if fraction > 1:
        raise InvalidMeasurement(
            f"model FLOPs utilization is {fraction:.0%} of a peak of {peak_flops_per_s:.4g} FLOP/s per device; "
            "no device exceeds its peak: check that the peak is that of this device, dense and of this precision"
        )
    return fraction


def utilization(measurement: Measurement, device: Device | None) -> Utilization:
    """Use of the peak in the measured precision; None where the device or its peak in that precision is not known."""
    per_device = measurement.tokens_per_s_per_device
    causal = flops_per_token(measurement.model, Convention.CAUSAL)
    full = flops_per_token(measurement.model, Convention.FULL)
    peak = None if device is None else device.peak_flops_per_s.get(measurement.precision)
    return Utilization(
        flops_per_s_per_device=per_device * causal,
        peak_flops_per_s=None if peak is None else peak.value,
        peak_source=_unknown(measurement, device) if peak is None else peak.source,
        mfu_causal=None if peak is None else mfu(per_device, causal, 1, peak.value),
        mfu_full=None if peak is None else mfu(per_device, full, 1, peak.value),
    )


def _unknown(measurement: Measurement, device: Device | None) -> str:
    """Why there is no peak to compare with."""
    if device is None:
        return f"no datasheet of {measurement.device_name} in conf/device/datasheet"
    return f"no {measurement.precision.value} peak in the datasheet of {device.name}"
