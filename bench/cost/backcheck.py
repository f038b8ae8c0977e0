"""Published failures and powers predicted without their own source."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bench.cost.draws import interval_of, log_normal
from bench.cost.goodput import checkpoint_interval_s, fraction_of, pooled, saving, small_loss_fraction
from bench.cost.layout import Array
from bench.cost.power import device_w
from bench.facts.backcheck import Compared, EnergyRow, ReliabilityRow
from bench.facts.figure import Interval
from bench.facts.hardware import Device
from bench.facts.reliability import Recovery, RecoveryKind, Reliability
from bench.facts.site import Site
from bench.facts.units import SECONDS_PER_DAY, SECONDS_PER_HOUR

BUSY = 0.9  # of the time a device computes, where a source does not say (assumed: few nodes, no pipeline)
# Power of a chip doing nothing. Source: cloud.google.com/tpu/docs/v3 and v4, measured minimum.
TPU_IDLE_W = {"TPUv3": 123.0, "TPUv4": 90.0}
TPU_MEAN_W = {"TPUv3": 220.0, "TPUv4": 170.0}  # measured mean, by the same pages


def per_day(row: ReliabilityRow, reliability: Reliability, scores: Mapping[str, Array]) -> tuple[Array, Array]:
    """(failures of nodes, interruptions of the job) a day at the scores "node" and "job", the row's own source left out."""
    n_nodes = row.n_devices / row.devices_per_node
    both = []
    for name, rates in (("node", reliability.node_failures_per_day), ("job", reliability.job_failures_per_day)):
        middle, log_sd = pooled(rate for source, rate in rates.items() if source not in row.leave_out)
        both.append(middle * np.exp(log_sd * scores[name]))
    return both[0] * n_nodes, both[1]


def compared(row: ReliabilityRow, reliability: Reliability, recovery: Recovery, scores: Mapping[str, Array]) -> tuple[Compared, ...]:
    """Interruptions, time between them and effective time, as far as the row tells them.

    The score "count" is that of chance: the number of events scatters with the root of its mean.
    """
    nodes, job = per_day(row, reliability, scores)
    rate = nodes if row.hardware_only else nodes + job
    found = []
    if row.count and row.days:
        mean = rate * row.days
        counts = np.maximum(mean + np.sqrt(mean) * scores["count"], 0)
        found.append(Compared(what="interruptions", predicted=interval_of(counts), observed_low=row.count[0], observed_high=row.count[1]))
    if row.mtbf_h:
        hours = SECONDS_PER_DAY / SECONDS_PER_HOUR / rate
        found.append(Compared(what="hours between", predicted=interval_of(hours), observed_low=row.mtbf_h[0], observed_high=row.mtbf_h[1]))
    if row.effective and row.n_parameters:
        kept = effective(row, recovery, SECONDS_PER_DAY / (nodes + job), scores)
        found.append(
            Compared(what="effective time", predicted=interval_of(kept), observed_low=row.effective[0], observed_high=row.effective[1])
        )
    return tuple(found)


def effective(row: ReliabilityRow, recovery: Recovery, mtbf_s: Array, scores: Mapping[str, Array]) -> Array:
    """Effective fraction of a row's run at the scores."""
    assert row.n_parameters is not None
    cost = saving(recovery, row.n_parameters, row.n_devices)
    detection = log_normal(recovery.detection_s, scores["detection"])
    return fraction_of(recovery, cost, detection, log_normal(recovery.restart_s, scores["restart"]), mtbf_s)


def first_order(row: ReliabilityRow, recovery: Recovery, mtbf_s: float) -> float | None:
    """Effective fraction of a row to first order, at the medians; None where that is negative or for replicas."""
    if row.n_parameters is None or recovery.kind is RecoveryKind.REPLICA:
        return None
    cost = saving(recovery, row.n_parameters, row.n_devices)
    interval = checkpoint_interval_s(recovery, cost, mtbf_s)
    return small_loss_fraction(interval, cost.blocking_s, recovery.detection_s.value + recovery.restart_s.value, mtbf_s)


def predicted_w(row: EnergyRow, others: Sequence[EnergyRow], device: Device | None, site: Site) -> tuple[float, str]:
    """(watts, how) of a device in a row's training.

    A device alone: by its rated power and the phases of a site. With its host, at a known speed: idle power, and watts per
    FLOP/s as the other rows of the same device drew them. Without a speed: the host's share that other rows show, those of the same
    device where there are any.
    """
    if not row.with_host:
        assert device is not None
        return device_w(site, device.power_w.value, BUSY), f"rated {device.power_w.value:g} W, {BUSY:.0%} busy (assumed)"
    idle = TPU_IDLE_W[row.device]
    if row.flops_per_s is not None:
        slopes = [
            (other.measured_w - idle) / other.flops_per_s
            for other in others
            if other.device == row.device and other.measured_w is not None and other.flops_per_s is not None
        ]
        slope = math.fsum(slopes) / len(slopes)
        return idle + slope * row.flops_per_s, f"idle {idle:g} W and {slope * 1e12:.2f} W per TFLOP/s of the {len(slopes)} other rows"
    whole = [other for other in others if other.with_host and other.measured_w]
    shown_by = [other for other in whole if other.device == row.device] or whole
    hosts = [other.measured_w - TPU_MEAN_W[other.device] for other in shown_by if other.measured_w]
    host, mean = math.fsum(hosts) / len(hosts), TPU_MEAN_W[row.device]
    return mean + host, f"mean chip {mean:g} W and {host:.0f} W of host as with {', '.join(other.source for other in shown_by)}"


def meets(own: Interval, low: float, high: float) -> bool:
    """Whether an interval and a claimed range have a value in common."""
    return own.p10 <= high and own.p90 >= low
