"""What failures leave of the time: the checkpoint interval, the effective fraction in closed form, and where that holds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.cost.layout import Array
from bench.facts.figure import Figure
from bench.facts.reliability import Goodput, Recovery, RecoveryKind
from bench.facts.units import SECONDS_PER_DAY

AGREEMENT = 0.01  # between the exact form and the first-order one, within which the latter counts as valid
MOST_RATIO = 30.0  # of checkpoint to time between failures; beyond it the best interval is that time, to 13 digits
LARGEST_EXPONENT = 700.0  # of e, before a float overflows


def pooled(rates: Iterable[Figure]) -> tuple[float, float]:
    """(median, standard deviation of the logarithm) of the next source's rate, log-normal, from what sources published.

    The deviation is the predictive one: a single source says nothing of the scatter and counts as a factor of 2 (1 sd).

    >>> pooled([Figure(value=v, provenance="published", source="s") for v in (0.001, 0.004)])[0]
    0.002
    """
    logs = [math.log(rate.value) for rate in rates]
    middle = math.fsum(logs) / len(logs)
    if len(logs) == 1:
        return math.exp(middle), math.log(2)
    variance = math.fsum((x - middle) ** 2 for x in logs) / (len(logs) - 1)
    return float(f"{math.exp(middle):.12g}"), math.sqrt(variance * (1 + 1 / len(logs)))


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Seconds that checkpoints cost."""

    checkpoint_bytes: float
    blocking_s: float
    lag_s: float


def saving(recovery: Recovery, n_parameters: float, n_devices: int) -> Saving:
    """What a checkpoint of a model costs on so many devices.

    Storage: training waits for the write. Asynchronous: it waits for the copy to host memory, and a failure before the write
    ends falls back one checkpoint further. Memory: the copy to a neighbour counts as a second one to the host. Replica: no
    checkpoint decides what a failure costs.
    """
    size = n_parameters * recovery.bytes_per_parameter.value
    write, snapshot = size / recovery.storage_bytes_per_s.value, size / n_devices / recovery.host_bytes_per_s.value
    blocking, lag = {
        RecoveryKind.STORAGE: (write, 0.0),
        RecoveryKind.ASYNC: (snapshot, write),
        RecoveryKind.MEMORY: (snapshot, snapshot),
        RecoveryKind.REPLICA: (snapshot, write),
    }[recovery.kind]
    return Saving(checkpoint_bytes=size, blocking_s=blocking, lag_s=lag)


def young_interval_s(blocking_s: float, mtbf_s: float) -> float:
    """The interval between checkpoints where they are short against the time between failures.

    Source: Young 1974.

    >>> young_interval_s(8.0, 100.0)
    40.0
    """
    return math.sqrt(2 * blocking_s * mtbf_s)


def optimal_interval_s(blocking_s: float, mtbf_s: float) -> float:
    """The interval of most effective time for exponential failures, however short the time between them.

    x = interval / mtbf solves x + log(1 - x) + blocking / mtbf = 0; that is 1 + W(-exp(-1 - blocking / mtbf)) with Lambert's W.
    Newton's method from the right, where it descends to the root without passing it.
    Source: derived from Daly 2006, eq. 20; it is Young's for blocking << mtbf.
    """
    ratio = blocking_s / mtbf_s
    if ratio == 0 or ratio > MOST_RATIO:
        return 0.0 if ratio == 0 else mtbf_s
    x = min(math.sqrt(2 * ratio), -math.expm1(-1 - ratio))
    for _ in range(60):
        step = (x + math.log1p(-x) + ratio) * (1 - x) / x
        x += step
        if abs(step) <= 1e-15 * x:
            break
    return x * mtbf_s


def effective_fraction(interval_s: Array, blocking_s: Array, downtime_s: Array, mtbf_s: Array, lag_s: Array) -> Array:
    """Useful over all time, exact for exponential failures that also strike during checkpoints and restarts.

    Work of one interval takes exp(downtime / mtbf) * (exp((interval + blocking) / mtbf) - 1) * mtbf on average. A lag
    before a snapshot is safe costs as much again at every failure, to first order: it adds to the downtime.
    Source: Daly 2006, eq. 20.
    """
    shape = np.broadcast(interval_s, blocking_s, downtime_s, mtbf_s, lag_s).shape
    whole = np.broadcast_to((interval_s + blocking_s) / mtbf_s, shape)
    down = np.broadcast_to((downtime_s + lag_s) / mtbf_s, shape)
    log_taken = down + np.where(whole > 30, whole, np.log(np.expm1(np.minimum(whole, 30))))
    log_useful = np.log(interval_s / mtbf_s)
    return np.asarray(np.exp(np.maximum(log_useful - log_taken, -LARGEST_EXPONENT)))


def small_loss_fraction(interval_s: float, blocking_s: float, downtime_s: float, mtbf_s: float) -> float | None:
    """The same to first order in the losses; None where that is negative.

    Source: Kokolis et al. 2024 (arXiv 2410.21680), expected ETTR.
    """
    left = (1 - (downtime_s + interval_s / 2) / mtbf_s) / (1 + blocking_s / interval_s)
    return left if left > 0 else None


def replica_fraction(downtime_s: Array, mtbf_s: Array, n_replicas: int, stall_s: Array) -> Array:
    """Effective fraction where the other replicas go on: all wait for the detection, one of them for the restart.

    Losses of more than all replicas at once are not counted. Source: derived; the scheme is torchft's and FT-HSDP's.
    """
    return np.asarray(1 / (1 + (stall_s + downtime_s / n_replicas) / mtbf_s))


def fraction_of(recovery: Recovery, cost: Saving, detection_s: Array, restart_s: Array, mtbf_s: Array) -> Array:
    """The effective fraction under a way to recover, the interval at its optimum for the middle of `mtbf_s` where none is given."""
    if recovery.kind is RecoveryKind.REPLICA:
        return replica_fraction(restart_s, mtbf_s, recovery.n_replicas, detection_s)
    interval = checkpoint_interval_s(recovery, cost, float(np.median(mtbf_s)))
    return effective_fraction(
        np.asarray(interval), np.asarray(cost.blocking_s), np.asarray(detection_s + restart_s), mtbf_s, np.asarray(cost.lag_s)
    )


def checkpoint_interval_s(recovery: Recovery, cost: Saving, mtbf_s: float) -> float:
    """The interval given, or the best one that storage bears."""
    if recovery.interval_s is not None:
        return recovery.interval_s.value
    return max(optimal_interval_s(cost.blocking_s, mtbf_s), cost.lag_s / recovery.write_fraction.value)


def goodput(
    recovery: Recovery,
    n_parameters: float,
    n_devices: int,
    *,
    node_rates: Sequence[tuple[int, float]],
    job_failures_per_day: float,
    warned_fraction: float = 0.0,
) -> Goodput:
    """The goodput at the medians. `node_rates` holds, by group, the nodes and the failures of one of them per day.

    `warned_fraction` of the interruptions is announced early enough to be noticed without a delay.
    """
    cost = saving(recovery, n_parameters, n_devices)
    per_day = math.fsum(n * rate for n, rate in node_rates) + job_failures_per_day
    mtbf = SECONDS_PER_DAY / per_day
    detection, restart = recovery.detection_s.value * (1 - warned_fraction), recovery.restart_s.value
    interval = checkpoint_interval_s(recovery, cost, mtbf)
    fraction = float(fraction_of(recovery, cost, np.asarray(detection), np.asarray(restart), np.asarray(mtbf)))
    small = None if recovery.kind is RecoveryKind.REPLICA else small_loss_fraction(interval, cost.blocking_s, detection + restart, mtbf)
    return Goodput(
        n_nodes=sum(n for n, _ in node_rates),
        mtbf_s=mtbf,
        interruptions_per_day=per_day,
        checkpoint_bytes=cost.checkpoint_bytes,
        blocking_s=cost.blocking_s,
        lag_s=cost.lag_s,
        interval_s=interval,
        downtime_s=detection + restart,
        effective_fraction=fraction,
        small_loss_fraction=small,
        first_order_valid=small is not None and abs(small - fraction) <= AGREEMENT * fraction,
        infeasible=_hopeless(recovery, cost, mtbf, fraction),
    )


def _hopeless(recovery: Recovery, cost: Saving, mtbf_s: float, fraction: float) -> str:
    """Why a run gets nowhere; empty where it does."""
    if recovery.kind is RecoveryKind.REPLICA:
        return ""
    longest = max(cost.blocking_s, cost.lag_s)
    if longest >= mtbf_s:
        return (
            f"a checkpoint takes {longest:,.0f} s and failures come every {mtbf_s:,.0f} s: almost none is ever whole; "
            f"write at {cost.checkpoint_bytes * 10 / mtbf_s / 1e12:,.1f} TB/s or more, or recover from replicas"
        )
    if fraction < 0.05:
        return f"failures every {mtbf_s:,.0f} s leave {fraction:.1%} of the time; use fewer nodes, or recover from replicas"
    return ""
