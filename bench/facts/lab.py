"""A laboratory of hosts on one machine: its networks, what is measured on few hosts, what is predicted for many, how that comes out."""

import math

from bench.facts.figure import Figure, fact, require
from bench.facts.hardware import Cluster
from bench.facts.model import ModelShape
from bench.facts.plan import BatchPlan, ParallelPlan
from bench.facts.profile import NetworkProbe

SICK_FRACTION = 0.1  # of its rate, for a link that is sick
SDS_OF_80_PERCENT = 1.2816  # of a normal distribution, on either side of its middle


@fact
class LabNetwork:
    """The links of a laboratory: those of a cluster, whose nodes are hosts here."""

    cluster: Cluster
    hosts_per_leaf: int  # hosts below one switch; without oversubscription one switch joins all
    jitter_s: float  # a frame is late by up to so much beyond the delay
    sick_host: int | None  # the host whose link has a tenth of the rate
    cases: dict[str, tuple[int, ...]]  # what is trained over it, and on how many hosts that is predicted

    def __post_init__(self) -> None:
        require(self.hosts_per_leaf >= 1, f"hosts_per_leaf {self.hosts_per_leaf} must be at least 1")
        require(self.jitter_s >= 0, f"jitter_s {self.jitter_s:g} must not be negative")
        require(self.sick_host is None or self.sick_host >= 2, f"sick_host {self.sick_host} must be 2 or more: the first two are measured")

    def bytes_per_s(self, host: int) -> float:
        """Payload that a host's link carries in one direction."""
        return self.port_bytes_per_s * (SICK_FRACTION if host == self.sick_host else 1.0)

    @property
    def port_bytes_per_s(self) -> float:
        """Payload of a healthy link."""
        return self.cluster.scale_out.bytes_per_s.value * self.cluster.devices_per_node

    @property
    def one_way_s(self) -> float:
        """Delay from host to host."""
        return self.cluster.scale_out.latency_s.value

    @property
    def uplink_bytes_per_s(self) -> float | None:
        """Payload between a leaf and the spine; None where one switch joins all."""
        over = self.cluster.oversubscription.value
        return self.port_bytes_per_s * self.hosts_per_leaf / over if over > 1 else None


@fact
class Lab:
    """An experiment: cases on networks, measured on one and two hosts, predicted for more, and measured there too."""

    networks: dict[str, LabNetwork]
    cases: dict[str, tuple[str, ...]]  # overrides as on the command line
    ranks_per_host: dict[str, int]  # of the cases that have several
    computed: tuple[str, ...]  # cases that two hosts of the first network compute too, to hold metered compute against
    most_bytes_per_s: Figure  # that all hosts together may send: what this machine carries
    steps: int  # timed steps of a case
    timeout_s: float  # of all cases of a network on so many hosts

    def __post_init__(self) -> None:
        for case in self.computed:
            require(case in self.cases, f"computed: no case '{case}' (cases: {', '.join(self.cases)})")
        for name, network in self.networks.items():
            for case, sizes in network.cases.items():
                require(case in self.cases, f"networks.{name}.cases: no case '{case}' (cases: {', '.join(self.cases)})")
                require(min(sizes) > 2, f"networks.{name}.cases.{case}: {min(sizes)} hosts; two are measured, give more than two")
            total, most = max(map(max, network.cases.values())) * network.port_bytes_per_s, self.most_bytes_per_s.value
            require(
                total <= most, f"networks.{name}: its hosts send {total:g} bytes/s in all, this machine carries {most:g}; use slower links"
            )


@fact
class LabPoint:
    """A case on so many hosts, measured. Phases are of the rank that is measured alone, and None elsewhere."""

    case: str
    n_hosts: int
    ranks_per_host: int
    model: ModelShape
    plan: ParallelPlan
    batch: BatchPlan
    is_metered: bool
    step_s: float  # mean over the timed steps
    median_s: float  # of them
    standard_error_s: float
    n_steps: int
    forward_s: float | None
    backward_s: float | None
    optimizer_s: float | None


@fact
class LabForecast:
    """The step of a case on so many hosts before it was measured there."""

    step_s: float
    low_s: float
    high_s: float
    parts_s: dict[str, float]  # of the step

    @property
    def log_sd(self) -> float:
        """Standard deviation of its logarithm."""
        return math.log(self.high_s / self.low_s) / (2 * SDS_OF_80_PERCENT)


@fact
class LabRow:
    """A forecast beside what was measured then, and beside what two rules say that ask for no model."""

    network: str
    case: str
    n_hosts: int
    forecast: LabForecast
    from_one_host: LabForecast  # with the description of the links alone
    promised_log_sd: float  # that a second host was said to be worth, before it was measured
    linear_s: float  # as fast a device as on one host
    doubling_s: float  # every doubling loses what the first one did
    measured_s: float
    measured_error_s: float


@fact
class LabHonesty:
    """A case whose compute was done, beside the same with its compute metered."""

    case: str
    n_hosts: int
    real_s: float  # medians over the timed steps
    metered_s: float


@fact
class LabNetworkResult:
    """Everything about one network."""

    network: LabNetwork
    probes: tuple[NetworkProbe, ...]
    points: tuple[LabPoint, ...]
    rows: tuple[LabRow, ...]


@fact
class LabResult:
    """lab.json: an experiment, measured and predicted."""

    lab_version: int
    date: str
    machine: str
    alone: tuple[LabPoint, ...]  # every case on one host
    honesty: tuple[LabHonesty, ...]
    networks: dict[str, LabNetworkResult]

    @property
    def rows(self) -> tuple[LabRow, ...]:
        """The rows of all networks."""
        return tuple(row for network in self.networks.values() for row in network.rows)
