"""What a machine's parts reach, each alone: matrix products, memory, collectives, and one layer's shard. Samples are kept."""

from enum import StrEnum

from bench.facts.breakdown import DeviceTelemetry
from bench.facts.figure import fact, require
from bench.facts.hardware import Backend, Precision
from bench.facts.measurement import Environment
from bench.facts.model import ModelShape
from bench.facts.plan import ParallelPlan

PROFILE_VERSION = 1


@fact
class RepeatPolicy:
    """When enough calls of one thing have been timed."""

    budget_s: float  # of timed calls, at most, unless min_samples take longer
    target_ci: float  # half width of the interval of the median over the median
    confidence: float
    min_samples: int

    def __post_init__(self) -> None:
        require(self.budget_s > 0, f"budget_s {self.budget_s:g} must be above 0")
        require(0 < self.target_ci < 1, f"target_ci {self.target_ci:g} must lie between 0 and 1; 0.03 is 3 %")
        require(0.5 <= self.confidence < 1, f"confidence {self.confidence:g} must lie between 0.5 and 1; 0.95 is usual")
        require(self.min_samples >= 2, f"min_samples {self.min_samples} must be at least 2")


@fact
class ProbePolicy:
    """What to probe, at which sizes, and for how long."""

    repeat: RepeatPolicy  # for each point
    matmul_sizes: tuple[int, ...]  # the surface: every m, k and n out of these
    attention_seq_lens: tuple[int, ...]
    memory_sizes_bytes: tuple[int, ...]  # of one array
    optimizer_parameters: tuple[int, ...]
    load_s: float  # that power and clocks are watched under the heaviest case of every kind; 0: never
    collective_min_bytes: int
    collective_max_bytes: int | None  # None: an eighth of the memory free for a rank
    collective_size_factor: int  # from one size to the next
    collective_timeout_s: float

    def __post_init__(self) -> None:
        for name in ("matmul_sizes", "attention_seq_lens", "memory_sizes_bytes", "optimizer_parameters"):
            require(all(size >= 1 for size in getattr(self, name)), f"{name} {list(getattr(self, name))} must all be at least 1")
        require(self.load_s >= 0, f"load_s {self.load_s:g} must be at least 0; 0 watches nothing")
        low, high = self.collective_min_bytes, self.collective_max_bytes
        require(low >= 4, f"collective_min_bytes {low} must be at least 4, one number")
        require(high is None or high >= low, f"collective_max_bytes {high} is below collective_min_bytes {low}")
        require(self.collective_size_factor >= 2, f"collective_size_factor {self.collective_size_factor} must be at least 2")
        require(self.collective_timeout_s > 0, f"collective_timeout_s {self.collective_timeout_s:g} must be above 0")


@fact
class Timing:
    """Seconds of one call, repeated; the first calls are never among them. The interval is that of the median."""

    samples_s: tuple[float, ...]
    calls_per_sample: int  # a sample is the mean of so many calls in a row
    median_s: float
    low_s: float
    high_s: float
    confidence: float

    def __post_init__(self) -> None:
        require(bool(self.samples_s), "samples_s is empty")
        require(self.low_s <= self.median_s <= self.high_s, f"median {self.median_s:g} lies outside {self.low_s:g} to {self.high_s:g}")


class ProbeKind(StrEnum):
    """What one device does alone."""

    MATMUL = "matmul"
    ATTENTION = "attention"
    COPY = "copy"
    TRIAD = "triad"
    LAUNCH = "launch"
    OPTIMIZER = "optimizer"


class WorkUnit(StrEnum):
    """What a rate counts."""

    FLOPS = "flops"
    BYTES = "bytes"
    CALLS = "calls"
    PARAMETERS = "parameters"


class Cache(StrEnum):
    """Where operands lie when a call begins."""

    WARM = "warm"  # the same operands in every call: in the last-level cache as far as they fit
    COLD = "cold"  # the cache has been overwritten before every call
    BEYOND = "beyond"  # operands are several times the cache


def probe_name(kind: ProbeKind, name: str, sizes: dict[str, int], precision: Precision, cold: bool) -> str:
    """What is probed, in words that no other probe of a profile has but the same with its operands elsewhere."""
    text = " ".join(f"{side}={size}" for side, size in sizes.items())
    return " ".join(filter(None, (kind.value, name, text, precision.value, "cold" if cold else "")))


@fact
class ProbeSamples:
    """One thing that a device does alone, timed, and its rate."""

    kind: ProbeKind
    name: str  # of a plan's product; empty for a point of the grid
    sizes: dict[str, int]
    precision: Precision
    cache: Cache
    work: float  # of one call
    work_unit: WorkUnit
    timing: Timing
    rate_per_s: float  # work over the median
    rate_low_per_s: float
    rate_high_per_s: float

    def __str__(self) -> str:
        return probe_name(self.kind, self.name, self.sizes, self.precision, self.cache is Cache.COLD)


class Collective(StrEnum):
    """Patterns of exchange."""

    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"
    SEND_RECV = "send_recv"  # every rank to the next, at the same time


class GroupAxis(StrEnum):
    """Which ranks exchange."""

    WITHIN_NODE = "within_node"
    ACROSS_NODES = "across_nodes"  # one rank of every node
    WORLD = "world"  # several ranks on each of several nodes


def bus_factor(collective: Collective, n_ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth: the share of the buffer that crosses the busiest link of a ring.

    Source: NVIDIA nccl-tests, doc/PERFORMANCE.md.

    >>> bus_factor(Collective.ALL_REDUCE, 4), bus_factor(Collective.ALL_GATHER, 4), bus_factor(Collective.SEND_RECV, 4)
    (1.5, 0.75, 1.0)
    """
    if collective is Collective.SEND_RECV:
        return 1.0
    return (2 if collective is Collective.ALL_REDUCE else 1) * (n_ranks - 1) / n_ranks


@fact
class CollectivePoint:
    """A collective of one size over one group. `size_bytes` is the whole buffer that a rank begins or ends with, as in nccl-tests."""

    collective: Collective
    axis: GroupAxis
    n_ranks: int
    size_bytes: int
    timing: Timing  # means over the ranks
    algorithm_bytes_per_s: float
    bus_bytes_per_s: float
    correct: bool  # whether every rank held the right numbers afterwards, in a call before the timed ones


SICK_LIMIT = 0.7  # of the median link; assumed: chance does not take so much from a link that is whole


@fact
class NodeLink:
    """What a node's link carries in one direction: the better of two exchanges, each with a neighbour and nobody else."""

    node: int
    bytes_per_s: float


@fact
class Absent:
    """What could not be probed, and why."""

    what: str
    reason: str


@fact
class NetworkProbe:
    """What ranks on several nodes see of one another."""

    n_nodes: int
    collectives: tuple[CollectivePoint, ...]
    absent: tuple[Absent, ...]
    links: tuple[NodeLink, ...]


@fact
class Load:
    """What a device drew, and how fast it ran, while one probe kept it busy."""

    what: str
    telemetry: DeviceTelemetry
    rate_per_s: float  # that it kept up, by host time; a short probe may run at a clock that power does not allow for long
    work_unit: WorkUnit


@fact
class DeviceProfile:
    """Everything that was probed on one kind of device: probes of one rank while the others were idle, and collectives."""

    profile_version: int
    device_name: str
    backend: Backend
    world_size: int
    n_nodes: int
    threads_per_rank: int
    communication: str  # library that carries the collectives; empty for one rank
    date: str
    environment: Environment
    target: str  # whose products were probed
    probes: tuple[ProbeSamples, ...]
    collectives: tuple[CollectivePoint, ...]
    absent: tuple[Absent, ...]
    warnings: tuple[str, ...]
    links: tuple[NodeLink, ...] = ()  # of every node, where there are three or more
    loads: tuple[Load, ...] = ()  # where something tells of power or clocks


@fact
class SliceSpec:
    """What one device of a big plan would hold, to be timed here."""

    target: str
    cluster: str  # whose plan it is; empty where every size was given
    model: ModelShape  # whole
    plan: ParallelPlan
    micro_batch_size: int
    n_layers: int
    precision: Precision
    seed: int
    repeat: RepeatPolicy
    layer_flops: float  # forward, of one layer and micro-batch on this device, causal attention halved
    ends_flops: float
    needed_bytes: float

    def __post_init__(self) -> None:
        require(self.n_layers >= 1, f"n_layers {self.n_layers} must be at least 1")
        require(self.micro_batch_size >= 1, f"micro_batch_size {self.micro_batch_size} must be at least 1")


@fact
class SlicePart:
    """One part of the slice, its three phases timed apart. The backward pass contains what is computed again."""

    n_parameters: int  # of this device, all layers of the part
    forward_flops: float
    forward: Timing
    backward: Timing
    optimizer: Timing


@fact
class SliceMeasurement:
    """A device's share of a big plan, timed on one device without any communication; seconds are of one micro-batch."""

    profile_version: int
    spec: SliceSpec
    local: ModelShape  # the widths that ran
    n_experts_held: int
    device_name: str
    backend: Backend
    threads_per_rank: int
    environment: Environment
    layers: SlicePart  # `spec.n_layers` of them
    ends: SlicePart  # embedding, last norm, head and loss
    peak_bytes: int
    notes: tuple[str, ...]
