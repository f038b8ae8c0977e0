"""The prior as numbers: its medians, and a fixed set of draws that spans it without any randomness."""

import math
from dataclasses import dataclass, fields, replace
from statistics import NormalDist

import numpy as np

from bench.cost.layout import Array
from bench.facts.figure import Interval, Parameter, weakest
from bench.facts.prediction import Prior

N_DRAWS = 512


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Values of the prior's parameters, one array each; the fields are the parameters of Prior."""

    kernel_fraction: Array
    expert_kernel_fraction: Array
    other_work_fraction: Array
    memory_rate_fraction: Array
    scale_up_fraction: Array
    scale_out_fraction: Array
    latency_growth_s: Array
    exposed_data_parallel_fraction: Array
    exposed_tensor_parallel_fraction: Array
    exposed_expert_parallel_fraction: Array
    step_spread_fraction: Array
    stack_fraction: Array


NAMES = tuple(field.name for field in fields(Draws))
WIDENING = ("latency_growth_s", "stack_fraction")  # less and less known beyond the published reach


def medians(prior: Prior, device_name: str) -> Draws:
    """Every parameter at its median, for a device."""
    return Draws(**{name: np.asarray(parameter_of(prior, name, device_name).value) for name in NAMES})


def draws(prior: Prior, device_name: str, n_devices: int, n_draws: int = N_DRAWS) -> Draws:
    """Draws of every parameter for a cluster of so many devices; the same arguments give the same draws."""
    normal = _normal_points(n_draws, len(NAMES))
    extra = prior.widening_log_sd.value * doublings_beyond_reach(prior, n_devices)
    spread = {name: _spread(parameter_of(prior, name, device_name), normal[i], extra * (name in WIDENING)) for i, name in enumerate(NAMES)}
    return Draws(**spread)


def parameter_of(prior: Prior, name: str, device_name: str) -> Parameter:
    """The parameter of the prior; for the kernels, that of this device, whose uncertainty is the two factors' together."""
    parameter: Parameter = getattr(prior, name)
    factor = prior.kernel_factor_by_device.get(device_name)
    if name != "kernel_fraction" or factor is None:
        return parameter
    log_sd = math.hypot(parameter.log_sd, factor.log_sd)
    return replace(
        parameter, value=parameter.value * factor.value, log_sd=log_sd, provenance=weakest(parameter.provenance, factor.provenance)
    )


def doublings_beyond_reach(prior: Prior, n_devices: int) -> float:
    """Doublings of the device count beyond what anyone published; 0 within."""
    return max(0.0, math.log2(n_devices / prior.published_reach_devices.value))


def interval(values: Array) -> Interval:
    """10th, 50th and 90th percentile."""
    p10, p50, p90 = (float(value) for value in np.quantile(values, (0.1, 0.5, 0.9)))
    return Interval(p10=p10, p50=p50, p90=p90)


def _spread(parameter: Parameter, normal: Array, extra_log_sd: float) -> Array:
    return np.asarray(parameter.value * np.exp(math.hypot(parameter.log_sd, extra_log_sd) * normal))


def _normal_points(n_points: int, n_dims: int) -> Array:
    """Standard normal points, shape (n_dims, n_points), from an additive recurrence.

    Source: Roberts 2018, "The unreasonable effectiveness of quasirandom sequences": steps are powers of the root of
    x^(d+1) = x + 1.
    """
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (n_dims + 1))
    steps = root ** -np.arange(1.0, n_dims + 1)
    uniform = (0.5 + np.outer(steps, np.arange(1, n_points + 1))) % 1
    return np.asarray(np.vectorize(NormalDist().inv_cdf)(np.clip(uniform, 1e-6, 1 - 1e-6)))
