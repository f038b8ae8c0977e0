"""Two rules for more hosts that ask for no model, to be beaten."""

import math

from bench.facts.lab import LabPoint


def linear_s(alone: LabPoint, point: LabPoint) -> float:
    """Seconds of a step where every host is as fast as it is alone."""
    return alone.step_s * _work(alone, point) / point.n_hosts


def doubling_s(alone: LabPoint, second: LabPoint, point: LabPoint) -> float:
    """Seconds of a step where every doubling of hosts multiplies the throughput as the first one did."""
    gained = _work(alone, second) * alone.step_s / second.step_s
    return alone.step_s * _work(alone, point) / math.pow(gained, math.log2(point.n_hosts))


def _work(alone: LabPoint, point: LabPoint) -> float:
    """Sequences of a step over those on one host."""
    return point.batch.global_batch_size / alone.batch.global_batch_size
