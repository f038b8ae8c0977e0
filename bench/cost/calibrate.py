"""What a local run says about the devices of a cluster, and what it cannot say."""

import math
from dataclasses import replace

from bench.cost.draws import medians, parameter_of
from bench.cost.parameters import n_parameters
from bench.cost.step_time import OPTIMIZER_TRAFFIC_BYTES, matmul_flops_per_s, step_flops_per_token
from bench.facts.figure import Parameter, Provenance
from bench.facts.hardware import Device, Precision
from bench.facts.measurement import Measurement
from bench.facts.prediction import Calibration, Prior

# One run against the same run on other nodes or another software release: 10 % root mean square over published repeats.
TRANSFER_LOG_SD = 0.10
CREDIBLE_SDS = 3.0  # a run further from the prior than this is in another regime: bound by launches, not by products
P10_TO_P90_SDS = 2 * 1.2816  # of a normal distribution


def calibrate(prior: Prior, measurement: Measurement | None, local_device: Device | None, cluster_device: Device) -> Calibration:
    """The prior after the local run, with what the run told and did not tell in sentences.

    Only a valid bf16 run on the cluster's own kind of device changes a figure.
    """
    links = "the links of the cluster: the local run crosses none of them"
    scale = "step spread and failures among thousands of devices"
    if measurement is None:
        return Calibration(prior=prior, told=(), not_told=("anything: nothing was measured here, every figure is the prior's",))
    if measurement.invalid:
        return Calibration(prior=prior, told=(), not_told=(f"anything: the run is not valid ({'; '.join(measurement.invalid)})",))
    reason = _why_not_comparable(measurement, local_device, cluster_device)
    if reason is None:
        return _updated(prior, measurement, cluster_device, _told(measurement), (links, scale))
    rates = f"the matrix and memory rates of {cluster_device.name}: {reason}"
    return Calibration(prior=prior, told=_told(measurement), not_told=(rates, links, scale))


def _why_not_comparable(measurement: Measurement, local_device: Device | None, cluster_device: Device) -> str | None:
    """Why the run is silent about the cluster's devices; None where it is not."""
    if local_device is None or local_device.name != cluster_device.name:
        return f"the run was on {measurement.device_name}"
    if measurement.precision is not Precision.BF16:
        return f"the run was in {measurement.precision.value}, the target trains in bf16"
    return None


def _told(measurement: Measurement) -> tuple[str, ...]:
    """What a run on any device shows."""
    spread = (measurement.step_s.p90 - measurement.step_s.p10) / P10_TO_P90_SDS / measurement.step_s.median
    where = f"{measurement.world_size} x {measurement.device_name}"
    return (
        f"the software's step is valid: {measurement.n_parameters:,} parameters train on {where}, "
        f"loss {measurement.loss_first:.3f} to {measurement.loss_last:.3f}",
        f"step spread measured there: {spread:.1%} of the median step, which stays a fact of that machine",
    )


def _updated(prior: Prior, measurement: Measurement, device: Device, told: tuple[str, ...], not_told: tuple[str, ...]) -> Calibration:
    """The calibration by a run on the cluster's own kind of device."""
    log_ratio = math.log(measurement.tokens_per_s_per_device / expected_tokens_per_s(prior, measurement, device))
    terms = _terms(prior, device)
    noise = math.hypot(TRANSFER_LOG_SD, measurement.tokens_per_s.half_width_fraction)
    variance = noise**2 + sum((weight * parameter.log_sd) ** 2 for weight, parameter in terms.values())
    if abs(log_ratio) > CREDIBLE_SDS * math.sqrt(variance):
        found = f"the matrix rate of {device.name}: the run reached {math.exp(log_ratio):.2f} of what the prior expects"
        return Calibration(prior=prior, told=told, not_told=(f"{found}, too far to be the same regime; take a larger model", *not_told))
    changed = {name: _posterior(parameter, weight, log_ratio, variance) for name, (weight, parameter) in terms.items()}
    sentence = f"{device.name} ran at {math.exp(log_ratio):.2f} of the speed that the prior expects of this model"
    return Calibration(prior=_with(prior, changed, device), told=(*told, sentence), not_told=not_told)


def expected_tokens_per_s(prior: Prior, measurement: Measurement, device: Device) -> float:
    """Tokens per second of one device by the prior's medians: products, work beside them, and the optimizer."""
    draws = medians(prior, device.name)
    rate = matmul_flops_per_s(device) * float(draws.kernel_fraction) / (1 + float(draws.other_work_fraction))
    tokens = measurement.tokens_per_step / measurement.world_size
    products_s = tokens * float(step_flops_per_token(measurement.model, draws)) / rate
    memory_rate = device.memory_bytes_per_s.value * float(draws.memory_rate_fraction)
    optimizer_s = n_parameters(measurement.model) * OPTIMIZER_TRAFFIC_BYTES / memory_rate
    return tokens / (float(draws.stack_fraction) * (products_s + optimizer_s))


def _terms(prior: Prior, device: Device) -> dict[str, tuple[float, Parameter]]:
    """Log-derivative of the speed by each parameter that it depends on, with the parameter."""
    other = prior.other_work_fraction
    return {
        "kernel_fraction": (1.0, parameter_of(prior, "kernel_fraction", device.name)),
        "other_work_fraction": (-other.value / (1 + other.value), other),
        "stack_fraction": (-1.0, prior.stack_fraction),
    }


def _posterior(parameter: Parameter, weight: float, log_ratio: float, variance: float) -> Parameter:
    """The parameter after one observation of the log speed, each taking its share of the surprise by its own variance.

    Source: the scalar Kalman update in logarithms (Gelman et al. 2013, Bayesian Data Analysis, section 2.5).
    """
    gain = weight * parameter.log_sd**2 / variance
    return Parameter(
        value=parameter.value * math.exp(gain * log_ratio),
        log_sd=parameter.log_sd * math.sqrt(1 - gain * weight),
        provenance=Provenance.MEASURED if gain * weight > 0.5 else parameter.provenance,
        source=f"{parameter.source}; updated by the local run",
    )


def _with(prior: Prior, changed: dict[str, Parameter], device: Device) -> Prior:
    """The prior with the changed parameters; the device's own kernel factor is in its kernel fraction by now."""
    factors = {name: factor for name, factor in prior.kernel_factor_by_device.items() if name != device.name}
    return replace(
        prior,
        kernel_fraction=changed["kernel_fraction"],
        other_work_fraction=changed["other_work_fraction"],
        stack_fraction=changed["stack_fraction"],
        kernel_factor_by_device=factors,
    )
