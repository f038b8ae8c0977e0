"""What a local run says about the devices of a cluster, and what it cannot say."""

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from bench.cost.layout import Layout, layout_of
from bench.cost.observation import CREDIBLE_SDS, KINDRED_LOG_SD, Observation, Observed, kindred_name, observation
from bench.cost.posterior import Evidence, Posterior, condition
from bench.cost.table import single
from bench.cost.workload import Workload, workload_of
from bench.facts.figure import Figure, Provenance
from bench.facts.hardware import HALF, Backend, Cluster, Device, Link, Precision
from bench.facts.measurement import Measurement
from bench.facts.model import ModelShape
from bench.facts.prediction import Prior
from bench.facts.stack import Stack, StackFamily

# One run against the same run on other nodes or another software release: 10 % root mean square over published repeats.
TRANSFER_LOG_SD = 0.10
# Our own trainer on one node, which nothing but itself slows, against what the prior expects of it from published stacks. Assumed: four
# on an H200, one eager and three compiled (benchmarks/h200), ran 1.26 to 1.59 times as fast.
OWN_LOG_SD = 0.30
# How well the spread of some minutes on one node tells what a cluster waits for its slowest device. Assumed.
JITTER_LOG_SD = 0.20
P10_TO_P90_SDS = 2 * 1.2816  # of a normal distribution
NOTHING = Observed()
TRAINED = (*HALF, Precision.FP8)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A stack as far as it is known, and in words what the local run told about the target's devices."""

    posterior: Posterior
    told: tuple[str, ...]
    not_told: tuple[str, ...]


def calibrate(
    prior: Prior,
    measurement: Measurement | None,
    local_device: Device | None,
    cluster: Cluster,
    observed: Observed = NOTHING,
) -> Calibration:
    """The prior after what profiles and slices observed and after the local run, with what they told and did not in sentences.

    Only a valid run on a device with the chip of the cluster's, in a precision that targets train in, changes a figure.
    """
    after = _after_run(condition(prior, None, observed.observations), measurement, local_device, cluster)
    silent = () if measurement is None and (observed.told or observed.not_told) else after.not_told
    return Calibration(posterior=after.posterior, told=(*observed.told, *after.told), not_told=(*observed.not_told, *silent))


def _after_run(cold: Posterior, measurement: Measurement | None, local_device: Device | None, cluster: Cluster) -> Calibration:
    links = "the links of the cluster: the local run crosses none of them"
    scale = "step spread and failures among thousands of devices"
    if measurement is None:
        return Calibration(posterior=cold, told=(), not_told=("anything: nothing was measured here, every figure is the prior's",))
    if measurement.invalid:
        return Calibration(posterior=cold, told=(), not_told=(f"anything: the run is not valid ({'; '.join(measurement.invalid)})",))
    reason = _why_not_comparable(measurement, local_device, cluster.device)
    if local_device and reason is None:
        return _updated(cold, measurement, local_device, cluster, not_told=(links, scale))
    rates = f"the matrix and memory rates of {cluster.device.name}, by the run: {reason}"
    spread = f"step spread measured there: {spread_of(measurement):.1%} of the median step, which stays a fact of that machine"
    return Calibration(posterior=cold, told=(_valid(measurement), spread), not_told=(rates, links, scale))


def _why_not_comparable(measurement: Measurement, local_device: Device | None, cluster_device: Device) -> str | None:
    """Why the run is silent about the cluster's devices; None where it is not."""
    if local_device is None or not local_device.has_chip_of(cluster_device):
        return f"it was on {measurement.device_name}"
    if measurement.precision not in TRAINED:
        return f"it was in {measurement.precision.value}, targets train in bf16 or narrower"
    return None


def _valid(measurement: Measurement) -> str:
    """What a run on any device shows."""
    where = f"{measurement.world_size} x {measurement.device_name}"
    return (
        f"the software's step is valid: {measurement.n_parameters:,} parameters train on {where}, "
        f"loss {measurement.loss_first:.3f} to {measurement.loss_last:.3f}"
    )


def spread_of(measurement: Measurement) -> float:
    """Standard deviation of a step over the median step, from the distance of its 10th and 90th percentiles."""
    return (measurement.step_s.p90 - measurement.step_s.p10) / P10_TO_P90_SDS / measurement.step_s.median


def slowest_of(n: int) -> float:
    """Mean of the largest of `n` normal numbers, in standard deviations. Source: Blom 1958, "Statistical Estimates and Transformed
    Beta-Variables": the quantile of (n - 3/8) / (n + 1/4)."""
    return NormalDist().inv_cdf((n - 0.375) / (n + 0.25))


def jitter(prior: Prior, measurement: Measurement, cluster: Cluster) -> tuple[tuple[Observation, ...], str]:
    """(the observation that a cluster of devices with this spread waits longer for the slowest than the fitted drag says; nothing where
    it does not: the drag holds more than jitter; the sentence about it)."""
    slowest, fitted = spread_of(measurement) * slowest_of(cluster.n_devices), prior.coefficients["straggler_per_doubling"].value
    drag = fitted * float(np.log2(cluster.n_nodes))
    sentence = f"steps spread by {spread_of(measurement):.1%}: the slowest of {cluster.n_devices:,} such devices takes {slowest:.1%} longer"
    if cluster.n_nodes < 2 or slowest <= drag:
        return (), f"{sentence}, no more than what large runs lose ({drag:.1%})"
    more = observation(prior, "waiting for the slowest device", slowest / drag, {"straggler_per_doubling": 1.0}, JITTER_LOG_SD)
    return (more,), f"{sentence}, more than what large runs lose ({drag:.1%})"


def _updated(cold: Posterior, measurement: Measurement, local: Device, cluster: Cluster, *, not_told: tuple[str, ...]) -> Calibration:
    """The calibration by a run on the cluster's own kind of device, or on another with its chip."""
    same = local.name == cluster.device.name
    name, further = kindred_name(local, cluster.device), 0.0 if same else KINDRED_LOG_SD
    evidence = evidence_of(measurement, local, further)
    mean, variance = cold.predict(evidence.table)
    surprise = float(evidence.log_s[0] - mean[0])
    sd = float(np.sqrt(variance[0] + cold.row_log_sd**2 + evidence.transfer_log_sd**2))
    observations, spread = jitter(cold.prior, measurement, cluster)
    told = (_valid(measurement), spread)
    if abs(surprise) > CREDIBLE_SDS * sd:
        found = f"the speed of {name}: the run reached {np.exp(-surprise):.2f} of what the prior expects"
        return Calibration(posterior=cold, told=told, not_told=(f"{found}, too far to be the same regime; take a larger model", *not_told))
    sentence = f"{name} ran at {np.exp(-surprise):.2f} of the speed that the prior expects of this model"
    posterior = condition(cold.prior, evidence, (*cold.observations, *observations))
    return Calibration(posterior=posterior, told=(*told, sentence), not_told=not_told)


def evidence_of(measurement: Measurement, device: Device, further_log_sd: float = 0.0) -> Evidence:
    """The run as a measured row: our own stack is torch's, one node of the device's usual kind. `further_log_sd`: how much further
    the device is from the one that it is to tell of."""
    site = usual_site(device, max(measurement.world_size, 1))
    m, compiled = measurement, measurement.compiled
    fuses_capped = compiled and m.backend in (Backend.CUDA, Backend.ROCM)
    work = own_work(m.model, layout_of(m.plan, m.batch), site, m.precision, fuses_capped=fuses_capped, compiled=compiled)
    log_s = -np.log([measurement.tokens_per_s_per_device])
    noise = float(np.linalg.norm((TRANSFER_LOG_SD, OWN_LOG_SD, further_log_sd, measurement.tokens_per_s.half_width_fraction)))
    return Evidence(table=single(work), log_s=log_s, transfer_log_sd=noise)


def own_work(shape: ModelShape, layout: Layout, site: Cluster, precision: Precision, *, fuses_capped: bool, compiled: bool) -> Workload:
    """A run of our own trainer: experts work at their capacity, whatever the router says, and capped scores are stored but by a kernel
    that fuses them."""
    stack = replace(own_stack(compiled), fused_attention=fuses_capped or shape.attention_softcap is None)
    work = workload_of(shape, layout, site, stack, precision)
    return replace(work, expert_flops=work.expert_flops * shape.expert_capacity_factor)


def usual_site(device: Device, devices_per_node: int) -> Cluster:
    """One node of a device's usual kind."""
    assumed = Figure(value=0.0, provenance=Provenance.ASSUMED, source="one node")
    return Cluster(
        name="here",
        claim="the machine of the run",
        n_nodes=1,
        devices_per_node=devices_per_node,
        device=device,
        scale_up_domain=device.scale_up_domain,
        scale_up=Link(bytes_per_s=device.scale_up_bytes_per_s, latency_s=assumed),
        scale_out=Link(bytes_per_s=device.scale_out_bytes_per_s, latency_s=assumed),
        oversubscription=Figure(value=1.0, provenance=Provenance.ASSUMED, source="one node"),
        reduces_in_network=False,
    )


def own_stack(compiled: bool) -> Stack:
    """The stack of our own trainer."""
    return Stack(
        name="proxybench",
        family=StackFamily.TORCH,
        year=2026,
        compiled=compiled,
        fused_attention=True,
        sequence_parallel=True,
        balanced_stages=False,
        zero_bubble=False,
        hides_gradients=True,
        hides_zero1=False,
        gradient_bytes=4,
        source="bench/run: torch's own calls",
    )
