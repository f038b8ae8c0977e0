"""What starts a job on machines that are not this one, and how its nodes find one another."""

import re
from typing import Literal

from bench.facts.figure import fact, require

# partitions, accounts, resources: nothing that begins an option or a shell word
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:,=\-]{0,127}")
SIGNALS = ("TERM", "USR1", "USR2")


@fact
class LaunchRequest:
    """Which of how many nodes this is; null is what the engine's variables say, and one node where they say nothing."""

    n_nodes: int | None
    node_rank: int | None
    master_addr: str | None
    master_port: int | None
    interface: str | None
    join_timeout_s: float

    def __post_init__(self) -> None:
        require(self.n_nodes is None or self.n_nodes >= 1, f"n_nodes {self.n_nodes} must be at least 1, or null")
        require(self.master_port is None or 1024 <= self.master_port <= 65535, f"master_port {self.master_port} must be in 1024 to 65535")
        require(self.join_timeout_s > 0, f"join_timeout_s {self.join_timeout_s:g} must be above 0")
        n_nodes, rank = self.n_nodes or 1, self.node_rank
        require(rank is None or self.n_nodes is not None, f"node_rank {rank} given without n_nodes; give both, or neither")
        require(rank is None or 0 <= rank < n_nodes, f"node_rank {rank} must be in 0 to {n_nodes - 1}")
        given = n_nodes > 1 and (rank is None or self.master_addr is None)
        require(not given, f"n_nodes {n_nodes} given; node_rank and master_addr are needed too")


@fact
class SlurmEngine:
    """A job of `bench submit` on Slurm; null leaves the choice to the site."""

    name: Literal["slurm"]
    verb: Literal["run", "probe", "sweep"]
    partition: str | None
    n_nodes: int
    time_limit_s: float
    account: str | None
    gres: str | None
    constraint: str | None
    cpus_per_node: int | None
    signal: str  # sent to every rank
    signal_lead_s: float  # before the time limit
    requeue: bool

    def __post_init__(self) -> None:
        require(self.n_nodes >= 1, f"n_nodes {self.n_nodes} must be at least 1")
        require(self.cpus_per_node is None or self.cpus_per_node >= 1, f"cpus_per_node {self.cpus_per_node} must be at least 1, or null")
        require(self.time_limit_s >= 60, f"time_limit_s {self.time_limit_s:g} must be at least 60: Slurm counts minutes")
        require(self.signal in SIGNALS, f"signal '{self.signal}' must be one of {', '.join(SIGNALS)}")
        lead = self.signal_lead_s
        require(0 < lead < self.time_limit_s, f"signal_lead_s {lead:g} must be above 0 and below time_limit_s {self.time_limit_s:g}")
        for name in ("partition", "account", "gres", "constraint"):
            value = getattr(self, name)
            require(value is None or bool(WORD.fullmatch(value)), f"{name} {value!r} must be a word of letters, digits and _.:,=-")
