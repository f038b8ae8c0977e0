"""What a device profile tells of the coefficients: each rate beside the one that the prior takes the device to have.

An isolated kernel is not the kernel in a step: operands lie elsewhere, neighbours compete for memory and power, shapes differ.
Every observation therefore carries a transfer noise. Those below are assumed; the first is what published repeats of whole
runs differ by (`bench.cost.calibrate`).
"""

import numpy as np

from bench.cost.coefficients import Coefficients, coefficients_of, log_values
from bench.cost.layer import BACKWARD_ATTENTION, STREAM_FRACTION
from bench.cost.observation import Observation, Observed, common_rate, kindred, observation, sorted_out
from bench.cost.workload import matmul_flops_per_s
from bench.facts.hardware import HALF, Architecture, Cluster, Device, Precision
from bench.facts.prediction import Prior
from bench.facts.profile import Cache, Collective, CollectivePoint, DeviceProfile, GroupAxis, ProbeKind, ProbeSamples

PRODUCT_LOG_SD, MEMORY_LOG_SD, ATTENTION_LOG_SD, OPTIMIZER_LOG_SD = 0.10, 0.10, 0.20, 0.20
LAUNCH_LOG_SD, LINK_LOG_SD, START_LOG_SD, NETWORK_LOG_SD = 0.50, 0.15, 0.50, 0.20
LAUNCH_S = 5e-6  # of one operation on one number, by torch on a server's host; assumed
LARGE = 1024  # least side of a product of the grid that tells of a rate
ADAM_BYTES = 28  # of a parameter in fp32: gradient, weight and two moments read, the last three written
MEMORY_BOUND = ("score_bytes", "traffic_factor", "cast_bytes", "dispatch_passes", "logit_bytes")
ARCHITECTURE_FACTORS = {
    Architecture.VOLTA: "kernel_factor_volta",
    Architecture.AMPERE: "kernel_factor_ampere",
    Architecture.BLACKWELL: "kernel_factor_blackwell",
    Architecture.CDNA: "kernel_factor_cdna",
}
FLOAT8 = (Precision.FP8,)


def from_profile(prior: Prior, profile: DeviceProfile, profiled: Device | None, cluster: Cluster) -> Observed:
    """What a profile tells of a cluster's device; nothing where it is of a device with another chip.

    Every rate is held against the datasheet of the device that was profiled: what carries over to another is the share of it.
    """
    device, source = cluster.device, f"profile of {profile.date}"
    if profiled is None or not profiled.has_chip_of(device):
        return Observed(
            not_told=(f"the rates of {device.name}: the profile is of {profile.device_name}, and a device tells of its own chip",)
        )
    by = coefficients_of(log_values(prior))
    found = [*_products(prior, profile, profiled), *_float8_products(prior, profile, profiled)]
    found += [*_attention(prior, profile, profiled, by), *_memory(prior, profile, profiled)]
    found += [*_launches(prior, profile), *_optimizer(prior, profile, profiled), *_links(prior, profile, profiled, cluster, by)]
    found, name = kindred(found, profiled, device)
    return sorted_out(prior, found, name, source) + _lacking(profile, cluster)


def to_be_probed(prior: Prior, device: Device) -> list[Observation]:
    """What a probe of one device would observe, all as expected: for pricing it before it is made."""
    names = ("kernel_fraction", *filter(None, (ARCHITECTURE_FACTORS.get(device.architecture),)))
    return [
        observation(prior, "products", 1.0, dict.fromkeys(names, -1.0), PRODUCT_LOG_SD),
        observation(prior, "attention", 1.0, {"kernel_fraction": -1.0, "attention_fraction": -1.0}, ATTENTION_LOG_SD),
        common_rate(prior, "memory", 1.0, MEMORY_BOUND, MEMORY_LOG_SD),
        observation(prior, "launches", 1.0, {"launch_floor_s": 1.0}, LAUNCH_LOG_SD),
        observation(prior, "optimizer", 1.0, {"optimizer_factor": 1.0}, OPTIMIZER_LOG_SD),
    ]


def _lacking(profile: DeviceProfile, cluster: Cluster) -> Observed:
    sentences = []
    if not any(p.kind is ProbeKind.MATMUL and p.precision in HALF for p in profile.probes):
        sentences.append(f"the products of {cluster.device.name} in bf16: the profile has none")
    if not any(p.axis is GroupAxis.ACROSS_NODES for p in profile.collectives):
        sentences.append("the network between nodes: the profile crosses none")
    return Observed(not_told=tuple(sentences))


def _products(prior: Prior, profile: DeviceProfile, device: Device) -> list[Observation]:
    """Those in bf16 or fp16, which all products in a step scale with."""
    names = ("kernel_fraction", *filter(None, (ARCHITECTURE_FACTORS.get(device.architecture),)))
    return _of_products(prior, profile, _telling(profile, HALF), device, what="matrix products", names=names)


def _float8_products(prior: Prior, profile: DeviceProfile, device: Device) -> list[Observation]:
    """Those in fp8, beside the best one that anyone measured; none where nobody has."""
    chosen = _telling(profile, FLOAT8) if Precision.FP8 in device.matmul_flops_per_s else []
    return _of_products(prior, profile, chosen, device, what="matrix products in fp8", names=("kernel_fraction", "fp8_fraction"))


def _telling(profile: DeviceProfile, precisions: tuple[Precision, ...]) -> list[ProbeSamples]:
    """Products of plans where they were probed, with the cache cold, else the large ones of the grid."""
    alike = [p for p in profile.probes if p.kind is ProbeKind.MATMUL and p.precision in precisions]
    chosen = [p for p in alike if p.name and p.cache is not Cache.WARM] or [p for p in alike if p.name]
    return chosen or [p for p in alike if min(p.sizes[side] for side in "mkn") >= LARGE]


def kept_up(profile: DeviceProfile, alike: ProbeSamples) -> float:
    """The rate that a device keeps up over the one of a short probe, of the same kind and precision; 1 where nobody looked.

    A probe is over before the power cap is felt, a training step is not.
    """
    short = {str(p): p.rate_per_s for p in profile.probes if (p.kind, p.precision) == (alike.kind, alike.precision)}
    return next((load.rate_per_s / short[load.what] for load in profile.loads if load.what in short), 1.0)


def _of_products(
    prior: Prior, profile: DeviceProfile, chosen: list[ProbeSamples], device: Device, *, what: str, names: tuple[str, ...]
) -> list[Observation]:
    if not chosen:
        return []
    rates = np.array([matmul_flops_per_s(device, p.precision) for p in chosen])
    short_s = sum(p.timing.median_s for p in chosen)
    bound = np.array([p.work for p in chosen]) / rates
    whole = bound + np.array([_operand_bytes(p) for p in chosen]) / _bytes_per_s(device)
    ratio = short_s / kept_up(profile, chosen[0]) / float(whole.sum())
    share = float(bound.sum() / whole.sum())
    return [observation(prior, f"{len(chosen)} {what}", ratio, dict.fromkeys(names, -share), PRODUCT_LOG_SD)]


def _operand_bytes(product: ProbeSamples) -> float:
    m, k, n = (product.sizes[side] for side in "mkn")
    item = 1.0 if product.precision is Precision.FP8 else 2.0  # of an operand; results are bf16
    return product.sizes.get("n_batch", 1) * (item * (m * k + k * n) + 2.0 * m * n)


def _bytes_per_s(device: Device) -> float:
    """What streams are taken to reach."""
    return STREAM_FRACTION * device.memory_bytes_per_s.value


def _attention(prior: Prior, profile: DeviceProfile, device: Device, by: Coefficients) -> list[Observation]:
    """Fused attention of the longest sequence, forward and backward: the probe counts three forward passes of FLOPs."""
    fused = [p for p in profile.probes if p.kind is ProbeKind.ATTENTION and p.precision in HALF and p.name.endswith("backward")]
    if not fused:
        return []
    longest = max(fused, key=lambda p: p.sizes["seq_len"])
    progress = float(by["attention_progress_per_year"]) ** 2  # the model's clip: two years after its reference
    rate = matmul_flops_per_s(device, longest.precision) * float(by["attention_fraction"]) * progress
    ratio = longest.timing.median_s / kept_up(profile, longest) * rate / ((1 + BACKWARD_ATTENTION) * longest.work / 3)
    slopes = {"kernel_fraction": -1.0, "attention_fraction": -1.0}
    return [observation(prior, f"attention over {longest.sizes['seq_len']:,} tokens", ratio, slopes, ATTENTION_LOG_SD)]


def _memory(prior: Prior, profile: DeviceProfile, device: Device) -> list[Observation]:
    """Copies and triads far beyond the cache, their geometric mean."""
    beyond = [p for p in profile.probes if p.kind in (ProbeKind.COPY, ProbeKind.TRIAD) and p.cache is Cache.BEYOND]
    if not beyond:
        return []
    rate = float(np.exp(np.mean([np.log(p.rate_per_s) for p in beyond])))
    return [common_rate(prior, "memory streams", _bytes_per_s(device) / rate, MEMORY_BOUND, MEMORY_LOG_SD)]


def _launches(prior: Prior, profile: DeviceProfile) -> list[Observation]:
    launches = [p.timing.median_s for p in profile.probes if p.kind is ProbeKind.LAUNCH]
    if not launches:
        return []
    return [observation(prior, "launches", float(np.mean(launches)) / LAUNCH_S, {"launch_floor_s": 1.0}, LAUNCH_LOG_SD)]


def _optimizer(prior: Prior, profile: DeviceProfile, device: Device) -> list[Observation]:
    steps = [p for p in profile.probes if p.kind is ProbeKind.OPTIMIZER and p.cache is Cache.BEYOND]
    if not steps:
        return []
    largest = max(steps, key=lambda p: p.work)
    ratio = largest.timing.median_s * _bytes_per_s(device) / (ADAM_BYTES * largest.work)
    return [observation(prior, "optimizer steps", ratio, {"optimizer_factor": 1.0}, OPTIMIZER_LOG_SD)]


def _links(prior: Prior, profile: DeviceProfile, device: Device, cluster: Cluster, by: Coefficients) -> list[Observation]:
    """Gathers inside a node and across nodes, where the cluster has the links of the device's usual node."""
    found = []
    gathers = [p for p in profile.collectives if p.collective is Collective.ALL_GATHER and p.correct]
    inside = _widest([p for p in gathers if p.axis is GroupAxis.WITHIN_NODE])
    across = _widest([p for p in gathers if p.axis is GroupAxis.ACROSS_NODES])
    if inside and _alike(cluster.scale_up.bytes_per_s.value, device.scale_up_bytes_per_s.value):
        largest, smallest = max(inside, key=lambda p: p.size_bytes), min(inside, key=lambda p: p.size_bytes)
        rate = device.scale_up_bytes_per_s.value * float(by["scale_up_fraction"])
        found.append(observation(prior, "links inside a node", rate / largest.bus_bytes_per_s, {"scale_up_fraction": -1.0}, LINK_LOG_SD))
        start = smallest.timing.median_s / float(by["scale_up_latency_s"])
        found.append(observation(prior, "starts of a collective", start, {"scale_up_latency_s": 1.0}, START_LOG_SD))
    if across and _alike(cluster.scale_out.bytes_per_s.value, device.scale_out_bytes_per_s.value):
        largest = max(across, key=lambda p: p.size_bytes)
        decay = float(by["scale_out_decay_per_doubling"]) * np.log2(largest.n_ranks)
        rate = device.scale_out_bytes_per_s.value * float(by["scale_out_fraction"]) * float(np.exp(-decay))
        slopes = {"scale_out_fraction": -1.0, "scale_out_decay_per_doubling": float(decay)}
        what = f"the network between {largest.n_ranks} nodes"
        found.append(observation(prior, what, rate / largest.bus_bytes_per_s, slopes, NETWORK_LOG_SD))
    return found


def _widest(points: list[CollectivePoint]) -> list[CollectivePoint]:
    most = max((p.n_ranks for p in points), default=0)
    return [p for p in points if p.n_ranks == most]


def _alike(first: float, second: float) -> bool:
    return abs(first / second - 1) < 0.01
