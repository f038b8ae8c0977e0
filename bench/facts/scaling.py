"""How a target's speed grows with the devices of a cluster."""

from enum import StrEnum

from bench.facts.figure import Interval, fact, require
from bench.facts.plan import ParallelPlan


class ScalingKind(StrEnum):
    """What happens to the batch as devices are added."""

    WEAK = "weak"  # it grows with them, up to the target's largest
    STRONG = "strong"  # it is the target's largest throughout


@fact
class ScalingPoint:
    """The recommended plan on so many devices of a cluster."""

    n_devices: int  # that are there
    plan: ParallelPlan
    global_batch_size: int
    tokens_per_s: Interval
    efficiency_fraction: float  # median tokens/s per device that is there, over the most of any point up to this one


@fact
class ScalingCurve:
    """One target on ever more devices of one cluster, the fewest that hold it first."""

    target: str
    cluster: str
    kind: ScalingKind
    points: tuple[ScalingPoint, ...]
    line_fraction: float  # of efficiency, below which more devices are taken not to pay
    knee_devices: int  # the most devices up to which no point lies below the line
    knee: str
    ceiling: str

    def __post_init__(self) -> None:
        require(bool(self.points), f"the scaling curve of {self.target} on {self.cluster} has no points")
        counts = [point.n_devices for point in self.points]
        require(counts == sorted(set(counts)), f"device counts {counts} must ascend")
        require(all(0 < point.efficiency_fraction <= 1 for point in self.points), "efficiency_fraction must lie above 0 and not above 1")
        require(0 < self.line_fraction < 1, f"line_fraction {self.line_fraction:g} must lie between 0 and 1; 0.8 is usual")


@fact
class WhatIf:
    """Predicted tokens per second on parts of a cluster (rows) with slower and faster links between its nodes (columns)."""

    target: str
    cluster: str
    devices_per_node: int
    n_devices: tuple[int, ...]
    link_factors: tuple[float, ...]
    tokens_per_s: tuple[tuple[Interval, ...], ...]

    def __post_init__(self) -> None:
        shape = {len(row) for row in self.tokens_per_s} | {len(self.link_factors)}
        require(len(shape) == 1 and len(self.tokens_per_s) == len(self.n_devices), "tokens_per_s is not n_devices by link_factors")
