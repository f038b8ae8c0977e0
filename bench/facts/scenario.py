"""A choice to be made: options that start at different dates, cost different money and fail in different ways."""

from enum import StrEnum

from bench.facts.figure import Figure, Parameter, Provenance, fact, require
from bench.facts.hardware import Cluster
from bench.facts.reliability import Recovery, Reliability
from bench.facts.site import Site


@fact
class Range:
    """An uncertain quantity that may be 0: 10th, 50th, 90th percentile; normal on either side of the middle."""

    p10: float
    p50: float
    p90: float
    provenance: Provenance
    source: str

    def __post_init__(self) -> None:
        require(0 <= self.p10 <= self.p50 <= self.p90, f"percentiles {self.p10:g}, {self.p50:g}, {self.p90:g} must ascend from 0")
        require(bool(self.source.strip()), f"source of the range around {self.p50:g} is empty; name where it comes from")


@fact
class Group:
    """Equal nodes that fail alike; a cluster may have several."""

    cluster: Cluster
    reliability: Reliability


class Capacity(StrEnum):
    """How devices are rented."""

    ON_DEMAND = "on_demand"
    RESERVED = "reserved"
    SPOT = "spot"


@fact
class Rental:
    """Devices of somebody else."""

    capacity: Capacity
    provider: str
    as_of: str
    usd_per_device_hour: Parameter
    losses_per_node_hour: Parameter | None  # of spot capacity
    notice_s: Figure | None  # between the warning and the loss

    def __post_init__(self) -> None:
        spot = self.capacity is Capacity.SPOT
        given = self.losses_per_node_hour is not None and self.notice_s is not None
        require(spot == given, f"capacity {self.capacity} needs {'losses_per_node_hour and notice_s' if spot else 'both of them null'}")


@fact
class Purchase:
    """Devices of one's own, per device; written off in a straight line."""

    as_of: str
    server_usd: Parameter  # the devices within it included
    network_usd: Parameter
    building_usd: Parameter  # hall, power and cooling
    server_life_s: Figure
    building_life_s: Figure
    residual_fraction: Figure  # of the servers, at the end of their life

    def __post_init__(self) -> None:
        for name in ("server_life_s", "building_life_s"):
            require(getattr(self, name).value > 0, f"{name} {getattr(self, name).value:g} must be above 0")
        require(0 <= self.residual_fraction.value <= 1, f"residual_fraction {self.residual_fraction.value:g} must lie between 0 and 1")


class SiteMode(StrEnum):
    """How several sites train one model."""

    SYNCHRONOUS = "synchronous"  # gradients cross the wide area in every step
    LOCAL_STEPS = "local_steps"  # weights cross once in many steps


@fact
class WideArea:
    """Several equal sites and the line between any two of them."""

    n_sites: int
    bytes_per_s: Figure  # one direction, of one site
    latency_s: Figure
    mode: SiteMode
    local_steps: int  # between exchanges, of mode local_steps
    bytes_per_parameter: Figure  # in one exchange
    hidden_fraction: Figure  # of an exchange, behind computing
    token_penalty: Parameter  # tokens for the same loss, over those of a synchronous run

    def __post_init__(self) -> None:
        require(self.n_sites >= 2, f"n_sites {self.n_sites} must be at least 2; leave wide_area null for one")
        require(self.bytes_per_s.value > 0, f"bytes_per_s {self.bytes_per_s.value:g} must be above 0")
        require(self.local_steps >= 1, f"local_steps {self.local_steps} must be at least 1")
        require(0 <= self.hidden_fraction.value <= 1, f"hidden_fraction {self.hidden_fraction.value:g} must lie between 0 and 1")


@fact
class Option:
    """One way to get the training done."""

    name: str
    claim: str
    reading: tuple[str, ...]  # where sources contradict one another or misprint: what is taken, and why
    groups: dict[str, Group]
    site: Site
    recovery: Recovery
    start_day: Range  # from today until the first device trains
    ramp_days: Range  # from then until all do, evenly
    rental: Rental | None
    purchase: Purchase | None
    wide_area: WideArea | None

    def __post_init__(self) -> None:
        require(bool(self.groups), f"option {self.name} has no groups; give at least one cluster")
        require(
            (self.rental is None) != (self.purchase is None), f"option {self.name} must have either a rental or a purchase, and not both"
        )

    @property
    def n_devices(self) -> int:
        """Devices of all groups."""
        return sum(group.cluster.n_devices for group in self.groups.values())

    @property
    def n_nodes(self) -> int:
        """Nodes of all groups."""
        return sum(group.cluster.n_nodes for group in self.groups.values())


@fact
class Scenario:
    """Options and the work that they compete for."""

    name: str
    options: dict[str, Option]
    first: str | None  # the option that the second is held against; null where there is nothing to choose
    second: str | None
    work_flops: Figure  # of the model, forward and backward, as MFU counts them
    milestones_flops: dict[str, Figure]
    horizon_days: int
    n_samples: int
    seed: int

    def __post_init__(self) -> None:
        require(bool(self.options), f"scenario {self.name} has no options; give at least one")
        require(self.work_flops.value > 0, f"work_flops {self.work_flops.value:g} must be above 0")
        require(self.horizon_days >= 1, f"horizon_days {self.horizon_days} must be at least 1")
        require(100 <= self.n_samples <= 100_000, f"n_samples {self.n_samples} must lie between 100 and 100,000")
        require((self.first is None) == (self.second is None), "first and second must both be given, or neither")
        for name in (self.first, self.second):
            require(name is None or name in self.options, f"'{name}' is no option of {self.name}; options: {', '.join(self.options)}")
