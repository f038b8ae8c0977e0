"""What was measured, where, and what may have spoilt it."""

from enum import StrEnum

from bench.facts.breakdown import MemoryUse, StepBreakdown, Telemetry
from bench.facts.checkpoint import TrainingLog
from bench.facts.figure import fact, require
from bench.facts.hardware import Backend, Precision
from bench.facts.model import ModelShape
from bench.facts.plan import BatchPlan, ParallelPlan


class WarningKind(StrEnum):
    """What could spoil a number."""

    WIDE_INTERVAL = "wide_interval"
    WARMUP_CAPPED = "warmup_capped"
    FEW_STEPS = "few_steps"
    SKEWED_STEPS = "skewed_steps"
    OUTLIERS = "outliers"
    TREND = "trend"
    BUSY_MACHINE = "busy_machine"
    UNCHANGED_PARAMETERS = "unchanged_parameters"
    SHARED_DEVICE = "shared_device"
    THROTTLED = "throttled"
    SLOW_RANK = "slow_rank"
    CUT_SHORT = "cut_short"
    OTHER_HOSTS = "other_hosts"
    TRACKER = "tracker"
    CHECKPOINT = "checkpoint"


@fact
class MeasurementWarning:
    """One thing that could spoil the number, in a sentence with its figure."""

    kind: WarningKind
    text: str


@fact
class Environment:
    """The machine and the software of a run. Secrets are masked before this is made."""

    host: str
    platform: str
    python: str
    packages: dict[str, str]
    cpu: str
    n_cores: int
    memory_bytes: int
    devices: tuple[str, ...]  # names that torch reports
    driver: str | None
    variables: dict[str, str]  # environment variables that may change speed
    started_at: str  # ISO 8601 in UTC; a label, never a source of durations

    @property
    def machine_kind(self) -> tuple[object, ...]:
        """What must be alike in two machines whose launches are pooled: processor, devices, driver and torch."""
        return self.cpu, self.n_cores, self.devices, self.driver, self.python, self.packages.get("torch")


@fact
class Survey:
    """What is here before anything is measured: devices, and a short trial of their training speed by precision."""

    backend: Backend
    device_name: str
    world_size: int
    memory_bytes: int  # free for this rank
    threads_per_rank: int
    trial_flops_per_s: dict[Precision, float]  # model FLOP/s of one rank while all ranks are working; empty if not tried


@fact
class Estimate:
    """A mean with its confidence interval, from a block bootstrap over steps."""

    value: float
    low: float
    high: float
    confidence: float
    n_steps: int
    block_length: int

    def __post_init__(self) -> None:
        require(self.low <= self.value <= self.high, f"estimate {self.value:g} lies outside its interval {self.low:g} to {self.high:g}")

    @property
    def half_width_fraction(self) -> float:
        """Half the width of the interval over the value."""
        return (self.high - self.low) / 2 / self.value


@fact
class Spread:
    """Where tokens/s differs, as standard deviations over its mean; None where one member of a kind tells nothing about it."""

    n_launches: int
    n_hosts: int
    within_run_fraction: float  # standard error of one launch's mean, from its own steps
    between_launch_fraction: float | None
    between_host_fraction: float | None  # of the ranks' own work: in synchronous training their steps are equally long


@fact
class Quantiles:
    """Order statistics of a sample."""

    p10: float
    median: float
    p90: float
    p99: float


class WarmupEnd(StrEnum):
    """What ended the warm-up."""

    STEADY = "steady"
    CAP = "cap"


class MeasureEnd(StrEnum):
    """What ended measuring."""

    STEPS = "steps"
    TARGET = "target"
    BUDGET = "budget"
    PREEMPTED = "preempted"  # so far: the machine was wanted back, or this is a snapshot of a launch that ended later


@fact
class LateStep:
    """An outlier, counted and dated, and still in every mean."""

    step: int  # place among the timed steps, from 0
    at_s: float  # seconds of timed steps before it
    step_s: float


@fact
class RankSamples:
    """Every step of one rank. Timed steps follow the warm-up without a gap in the training itself."""

    rank: int
    host: str
    warmup_s: tuple[float, ...]
    step_s: tuple[float, ...]
    window_s: tuple[float, ...]  # seconds of each window on this rank, between its synchronised edges
    peak_allocated_bytes: int | None  # None where torch does not count them (CPU)
    peak_reserved_bytes: int  # on a CPU: the resident set


@fact
class Measurement:
    """A training run, measured. Throughput is that of the whole world; of several launches, the mean launch."""

    backend: Backend
    device_name: str
    world_size: int
    threads_per_rank: int
    precision: Precision
    compiled: bool
    model: ModelShape
    plan: ParallelPlan
    batch: BatchPlan
    tokens_per_step: int
    n_parameters: int
    warmup_end: WarmupEnd
    steps_per_window: tuple[int, ...]
    ranks: tuple[RankSamples, ...]
    tokens_per_s: Estimate
    step_s: Quantiles
    setup_s: float
    compile_s: float  # first step less a steady one
    loss_first: float | None  # None where it is not finite
    loss_last: float | None
    grad_norm: float | None
    warnings: tuple[MeasurementWarning, ...]
    invalid: tuple[str, ...]  # reasons why this is no training speed; empty when valid
    measure_end: MeasureEnd | None = None
    spread: Spread | None = None
    late_steps: tuple[LateStep, ...] = ()
    breakdown: StepBreakdown | None = None
    memory: tuple[MemoryUse, ...] = ()  # by rank
    telemetry: Telemetry | None = None  # None where nothing here tells of power, clocks or temperature
    training: TrainingLog | None = None  # None where no state is saved (train.checkpoint_every_steps)

    @property
    def is_partial(self) -> bool:
        """Whether measuring was cut short."""
        return self.measure_end is MeasureEnd.PREEMPTED

    @property
    def n_steps(self) -> int:
        """Timed steps."""
        return self.tokens_per_s.n_steps

    @property
    def tokens_per_s_per_device(self) -> float:
        """Mean throughput of one device."""
        return self.tokens_per_s.value / self.world_size


@fact
class Utilization:
    """Use of the device's dense peak; None where the peak is not known. Two conventions of counting causal attention."""

    flops_per_s_per_device: float  # model FLOPs, causal attention halved
    peak_flops_per_s: float | None
    peak_source: str
    mfu_causal: float | None
    mfu_full: float | None
