"""The schema of conf/: what a composed configuration may say."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from bench.facts.engine import LaunchRequest, SlurmEngine
from bench.facts.figure import Figure, fact, require
from bench.facts.hardware import Backend, Cluster, Precision
from bench.facts.lab import Lab
from bench.facts.mirror import check_uri
from bench.facts.model import ModelShape, Target, nearest_divisors
from bench.facts.plan import Recompute, Sharding
from bench.facts.prediction import Prior
from bench.facts.profile import ProbePolicy, RepeatPolicy
from bench.facts.run import MeasurePolicy
from bench.facts.scenario import Scenario
from bench.facts.stack import Stack

# A tag in angle brackets is left out of the path that an error shows.
Auto = Annotated[Literal["auto"], Tag("<auto>")]
_BY_AUTO = Discriminator(lambda value: "<auto>" if value == "auto" else "<given>")
AutoInt = Annotated[Auto | Annotated[int, Tag("<given>")], _BY_AUTO]
AutoBackend = Annotated[Auto | Annotated[Backend, Tag("<given>")], _BY_AUTO]
AutoPrecision = Annotated[Auto | Annotated[Precision, Tag("<given>")], _BY_AUTO]
AutoRecompute = Annotated[Auto | Annotated[Recompute, Tag("<given>")], _BY_AUTO]


@fact
class Ladder:
    """Models to choose from, small to large."""

    name: str
    rungs: dict[str, ModelShape]

    def __post_init__(self) -> None:
        require(bool(self.rungs), "rungs is empty; give at least one model")


def _has(key: str, yes: str, no: str) -> Discriminator:
    return Discriminator(lambda value: yes if (isinstance(value, Mapping) and key in value) or hasattr(value, key) else no)


AnyModel = Annotated[Annotated[Ladder, Tag("<ladder>")] | Annotated[ModelShape, Tag("<shape>")], _has("rungs", "<ladder>", "<shape>")]
AnyCluster = Annotated[
    Annotated[Cluster, Tag("<one>")] | Annotated[dict[str, Cluster], Tag("<several>")], _has("n_nodes", "<one>", "<several>")
]


@fact
class DeviceRequest:
    """Which devices of this machine to use."""

    backend: AutoBackend
    n_devices: AutoInt
    threads_per_rank: AutoInt

    def __post_init__(self) -> None:
        for name in ("n_devices", "threads_per_rank"):
            value = getattr(self, name)
            require(value == "auto" or value >= 1, f"{name} {value} must be at least 1, or auto")


@fact
class PlanRequest:
    """The parallel plan of the local run; fields as in ParallelPlan."""

    name: str
    data_parallel_size: AutoInt
    data_parallel_replicate_size: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    n_virtual_stages: int
    context_parallel_size: int
    expert_parallel_size: int
    sharding: Sharding
    recompute: Recompute


@fact
class TrainRequest:
    """The training step; batch sizes in sequences."""

    micro_batch_size: AutoInt
    global_batch_size: AutoInt
    precision: AutoPrecision
    compile: bool
    learning_rate: float
    weight_decay: float
    seed: int
    checkpoint_every_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("micro_batch_size", "global_batch_size"):
            value = getattr(self, name)
            require(value == "auto" or value >= 1, f"{name} {value} must be at least 1, or auto")
        require(self.precision is not Precision.FP4, "precision fp4 is predicted (target.precision=fp4), not run; use fp8 or bf16")
        every = self.checkpoint_every_steps
        require(every is None or every >= 1, f"checkpoint_every_steps {every} must be at least 1, or null to save nothing")


@fact
class SliceRequest:
    """Whose share of a layer to build; `auto` is as in the plan that the search finds for the cluster."""

    tensor_parallel_size: AutoInt
    expert_parallel_size: AutoInt
    context_parallel_size: AutoInt
    micro_batch_size: AutoInt
    recompute: AutoRecompute
    n_layers: int
    repeat: RepeatPolicy


@fact
class SweepPolicy:
    """How the points of a sweep are run."""

    points: str | None  # a YAML file: a list of points, each a list of overrides; None: the grid of the command line alone
    timeout_s: float  # of one launch
    retries: int  # of a point whose rank was killed
    seed: int  # of the order of points, which is drawn anew for every round of launches

    def __post_init__(self) -> None:
        require(self.timeout_s > 0, f"timeout_s {self.timeout_s:g} must be above 0")
        require(self.retries >= 0, f"retries {self.retries} must not be negative")
        require(self.seed >= 0, f"seed {self.seed} must not be negative")


@fact
class ComparePolicy:
    """How two runs are compared."""

    noise_floor: Figure  # standard deviation between launches over their mean, where no run tells it

    def __post_init__(self) -> None:
        require(self.noise_floor.value >= 0, f"noise_floor.value {self.noise_floor.value:g} must not be negative")


@fact
class Price:
    """What a device costs to rent."""

    name: str
    rental_usd_per_device_hour: dict[str, Figure]

    def __post_init__(self) -> None:
        for device, price in self.rental_usd_per_device_hour.items():
            require(price.value > 0, f"rental_usd_per_device_hour.{device} {price.value:g} must be above 0; leave out what has no price")


@fact
class Config:
    """A composed configuration."""

    model: AnyModel
    target: Target
    device: DeviceRequest
    cluster: AnyCluster
    plan: PlanRequest
    train: TrainRequest
    measure: MeasurePolicy
    prior: Prior
    stack: Stack
    price: Price
    probe: ProbePolicy
    slice: SliceRequest
    scenario: Scenario | None
    lab: Lab | None
    sweep: SweepPolicy
    rows: str | None
    calibration: str | None
    protocol: Literal["published", "slices"]
    result: str | None
    profile: str | None
    slices: tuple[str, ...]
    n_devices: int | None
    page: bool
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...]
    event_log: bool
    compare: ComparePolicy
    gate: str | float | None
    format: Literal["markdown", "csv"]
    results_uri: str | None
    launch: LaunchRequest
    engine: SlurmEngine
    name: str
    out: str | None

    def __post_init__(self) -> None:
        if self.results_uri is not None:
            check_uri(self.results_uri)
        require(self.n_devices is None or self.n_devices >= 1, f"n_devices {self.n_devices} must be at least 1, or null")

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        """The clusters to project to, in the order given."""
        return (self.cluster,) if isinstance(self.cluster, Cluster) else tuple(self.cluster.values())


def fill_head_dim(plain: Any) -> Any:
    """The same mapping with every `head_dim: auto` filled in as d_model / n_heads. Raises InvalidFact where that does not divide."""
    if not isinstance(plain, dict):
        return plain
    filled = {key: fill_head_dim(value) for key, value in plain.items()}
    if filled.get("head_dim") == "auto":
        filled["head_dim"] = _head_dim(filled)
    return filled


def _head_dim(shape: dict[str, Any]) -> int:
    d_model, n_heads = shape.get("d_model"), shape.get("n_heads")
    if not isinstance(d_model, int) or not isinstance(n_heads, int) or n_heads < 1 or d_model < 1:
        return 1  # the decoder names what is wrong with these
    require(d_model % n_heads == 0, f"model.n_heads: {n_heads} does not divide d_model {d_model}; use {nearest_divisors(n_heads, d_model)}")
    return d_model // n_heads
