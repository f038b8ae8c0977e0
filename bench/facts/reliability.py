"""What breaks, how often, and what a run does about it. Rates keep their sources apart: where those disagree, that is the interval."""

from enum import StrEnum

from bench.facts.figure import Figure, Parameter, fact, require


@fact
class Reliability:
    """How often a training job is interrupted. Published rates by source; none is preferred."""

    name: str
    node_failures_per_day: dict[str, Figure]  # of one node, hardware only
    job_failures_per_day: dict[str, Figure]  # of the job as a whole: software, dependencies, people
    vendor_factor: Parameter  # on the rate of nodes, for racks of one vendor
    slow_fraction: Parameter  # of the speed, lost to nodes that are slow and not yet found

    def __post_init__(self) -> None:
        for name in ("node_failures_per_day", "job_failures_per_day"):
            rates = getattr(self, name)
            require(bool(rates), f"{name} is empty; give at least one published rate")
            for source, rate in rates.items():
                require(rate.value > 0, f"{name}.{source} {rate.value:g} must be above 0")


class RecoveryKind(StrEnum):
    """Where a job that lost a node goes on from."""

    STORAGE = "storage"  # a checkpoint in storage; training waits while it is written
    ASYNC = "async"  # the same; training waits only for the copy to host memory
    MEMORY = "memory"  # a copy in another node's memory; storage is only for the worst
    REPLICA = "replica"  # the other data-parallel replicas; nothing is rolled back


@fact
class Recovery:
    """How a run saves itself and what a failure costs it."""

    name: str
    kind: RecoveryKind
    bytes_per_parameter: Figure  # of a checkpoint
    storage_bytes_per_s: Figure  # of all writers together
    write_fraction: Figure  # of the time, at most, in which storage takes checkpoints that nobody waits for
    host_bytes_per_s: Figure  # device to host memory, per device
    detection_s: Parameter
    restart_s: Parameter  # from the alarm to the first step, loading included
    repair_s: Parameter  # until a failed node is back
    spare_fraction: Figure  # nodes kept idle, over nodes in use
    n_replicas: int  # groups that go on without one another; of kind replica
    interval_s: Figure | None  # between checkpoints; null: the optimum

    def __post_init__(self) -> None:
        for name in ("bytes_per_parameter", "storage_bytes_per_s", "host_bytes_per_s"):
            value = getattr(self, name).value
            require(value > 0, f"{name} {value:g} must be above 0")
        require(0 < self.write_fraction.value <= 1, f"write_fraction {self.write_fraction.value:g} must lie above 0 and at most at 1")
        require(0 <= self.spare_fraction.value < 1, f"spare_fraction {self.spare_fraction.value:g} must be at least 0 and below 1")
        require(self.n_replicas >= 1, f"n_replicas {self.n_replicas} must be at least 1")
        require(self.interval_s is None or self.interval_s.value > 0, "interval_s must be above 0, or null for the optimum")


@fact
class Goodput:
    """What is left of a run's time after failures, and why it is not more."""

    n_nodes: int
    mtbf_s: float  # between interruptions of the whole job, at the median rates
    interruptions_per_day: float
    checkpoint_bytes: float
    blocking_s: float  # training waits so long for every checkpoint
    lag_s: float  # from a snapshot to its safety
    interval_s: float
    downtime_s: float  # detection and restart
    effective_fraction: float  # of the wall time, at the medians; exact for exponential failures
    small_loss_fraction: float | None  # by the first-order form; None where that is negative
    first_order_valid: bool  # whether both agree within 1 %; False for replicas, which have one form only
    infeasible: str  # why this cannot work; empty where it can
