"""What is expected of a cluster that is not here. Holds no observed value of what it predicts."""

import math
from enum import StrEnum

from bench.facts.figure import Figure, Interval, Provenance, fact, require
from bench.facts.hardware import Precision
from bench.facts.plan import BatchPlan, ParallelPlan


class Part(StrEnum):
    """Parts of a step. They add up to it."""

    COMPUTE = "compute"
    RECOMPUTE = "recompute"
    LAUNCH = "launch"
    TENSOR_PARALLEL = "tensor_parallel"
    CONTEXT_PARALLEL = "context_parallel"
    EXPERT_PARALLEL = "expert_parallel"
    PIPELINE_SEND = "pipeline_send"
    BUBBLE = "bubble"
    DATA_PARALLEL = "data_parallel"
    OPTIMIZER = "optimizer"
    OVERHEAD = "overhead"
    STRAGGLER = "straggler"


@fact
class StepPart:
    """Seconds of one part of the median step, as far as nothing hides it, and what its time rests on."""

    part: Part
    time_s: float
    provenance: Provenance
    basis: str


@fact
class Cause:
    """What makes a prediction unsure."""

    cause: str
    share: float  # of the variance of the logarithm
    log_sd: float  # so much of the whole standard deviation, in quadrature


@fact
class Advice:
    """A run that would narrow a prediction: half its 80 % interval over the median, before and after, whatever the run shows."""

    what: str
    device_minutes: float
    before_fraction: float
    after_fraction: float


@fact
class RunnerUp:
    """A plan that was not chosen, and why."""

    plan: ParallelPlan
    batch: BatchPlan
    step_s: float
    slower_fraction: float  # per token, than the fastest that fits
    need_bytes: float
    fits_probability: float
    why: str


@fact
class PlanSearch:
    """Every plan of a model on a cluster."""

    target: str
    cluster: str
    n_plans: int
    n_fitting: int
    n_safe: int  # fit with the chance that a recommended plan has, at least
    capacity_bytes: float
    recommended: RunnerUp  # the fastest of these, or the one with most room where there is none
    front: tuple[RunnerUp, ...]  # no other is both faster and smaller; the fastest first
    runners_up: tuple[RunnerUp, ...]


def fits_probability(need_bytes: float, capacity_bytes: float, need_log_sd: float) -> float:
    """The chance that a need, log-normal around its estimate, is no more than what there is."""
    return 0.5 * (1 + math.erf(math.log(capacity_bytes / need_bytes) / need_log_sd / math.sqrt(2)))


@fact
class MemoryEstimate:
    """Bytes on the fullest device."""

    state_bytes: float  # weights, gradients, optimizer
    activation_bytes: float
    overhead_bytes: float
    capacity_bytes: float
    need_log_sd: float  # of the total, log-normal around the estimate

    @property
    def total_bytes(self) -> float:
        """Everything that has to fit."""
        return self.state_bytes + self.activation_bytes + self.overhead_bytes

    @property
    def fits(self) -> bool:
        """Whether it does."""
        return self.total_bytes <= self.capacity_bytes

    @property
    def fits_probability(self) -> float:
        """The chance that it does: a half where the estimate is the capacity."""
        return fits_probability(self.total_bytes, self.capacity_bytes, self.need_log_sd)


@fact
class Coefficient:
    """An uncertain figure of the cost model, log-normal."""

    value: float  # median over stacks
    log_sd: float  # how unsure that median is
    stack_log_sd: float  # how far stacks differ from it
    provenance: Provenance
    source: str

    def __post_init__(self) -> None:
        require(self.value > 0, f"value {self.value:g} must be above 0")
        require(self.log_sd > 0, f"log_sd {self.log_sd:g} must be above 0")
        require(self.stack_log_sd >= 0, f"stack_log_sd {self.stack_log_sd:g} must not be negative")
        require(bool(self.source.strip()), f"source of the coefficient {self.value:g} is empty; name where it comes from")


@fact
class Widths:
    """Factors on the standard deviation of a prediction, so that 80 % intervals hold 80 % of rows that the fit never saw."""

    cold: Figure  # nothing of the stack was measured
    model: Figure  # the same model on the same stack was
    stack: Figure  # another model on it was
    plans: Figure  # many plans on it were
    experts: Figure  # on those, for mixtures of experts; the larger of the factors that apply
    blackwell: Figure  # for NVIDIA Blackwell
    cdna: Figure  # for AMD CDNA


@fact
class Prior:
    """The uncertain figures of the cost model, before anything of a stack is measured."""

    name: str
    coefficients: dict[str, Coefficient]
    series_log_sd: Figure  # of what one model on one stack has of its own
    shape_log_sd: Figure  # of what the formulas miss, smooth in the set-up
    shape_length: Figure  # doublings of one dimension over which it stays alike
    scale_log_sd_per_doubling: Figure  # of a slope in the device count, from eight devices on
    row_log_sd: Figure  # of a single published speed
    widths: Widths
    published_reach_devices: Figure  # the most devices of a published collective; beyond it predictions widen
    widening_log_sd: Figure  # added in quadrature per doubling beyond it


@fact
class Prediction:
    """A full-size training run on a cluster: a plan that fits and what it would do."""

    target: str
    cluster: str
    n_devices: int  # of the cluster
    plan: ParallelPlan
    batch: BatchPlan
    memory: MemoryEstimate
    step_s: Interval
    parts: tuple[StepPart, ...]  # of the median step
    uncertainty: tuple[Cause, ...]  # largest first
    next_runs: tuple[Advice, ...]  # what to measure next, best per device-minute first
    tokens_per_s: Interval
    mfu_causal: Interval
    mfu_full: Interval
    days: Interval  # for n_tokens, no failures counted
    n_tokens: float
    rental_usd: Interval | None
    rental_basis: str
    told: tuple[str, ...]
    not_told: tuple[str, ...]
    provenance: Provenance  # the weakest that the step time rests on
    precision: Precision = Precision.BF16  # of the linear layers

    @property
    def n_devices_used(self) -> int:
        """Devices that the plan keeps busy."""
        return self.plan.world_size
