"""What is expected of a cluster that is not here. Holds no observed value of what it predicts."""

from enum import StrEnum

from bench.facts.figure import Figure, Interval, Parameter, Provenance, fact
from bench.facts.plan import BatchPlan, ParallelPlan


class Part(StrEnum):
    """Parts of a step. They add up to it."""

    COMPUTE = "compute"
    RECOMPUTE = "recompute"
    TENSOR_PARALLEL = "tensor_parallel"
    CONTEXT_PARALLEL = "context_parallel"
    EXPERT_PARALLEL = "expert_parallel"
    PIPELINE_SEND = "pipeline_send"
    BUBBLE = "bubble"
    DATA_PARALLEL = "data_parallel"
    OPTIMIZER = "optimizer"
    STRAGGLER = "straggler"


@fact
class StepPart:
    """Seconds of one part of the median step, as far as nothing hides it, and what its time rests on."""

    part: Part
    time_s: float
    provenance: Provenance
    basis: str


@fact
class MemoryEstimate:
    """Bytes on the fullest device."""

    state_bytes: float  # weights, gradients, optimizer
    activation_bytes: float
    overhead_bytes: float
    capacity_bytes: float

    @property
    def total_bytes(self) -> float:
        """Everything that has to fit."""
        return self.state_bytes + self.activation_bytes + self.overhead_bytes

    @property
    def fits(self) -> bool:
        """Whether it does."""
        return self.total_bytes <= self.capacity_bytes


@fact
class Prior:
    """The uncertain figures of the cost model, before anything is measured."""

    name: str
    kernel_fraction: Parameter  # rate of the matrix products inside a model over the best measured single product
    kernel_factor_by_device: dict[str, Parameter]  # on kernel_fraction, by Device.name; 1 for a device that is absent
    expert_kernel_fraction: Parameter  # rate of an expert's products over that of dense ones
    other_work_fraction: Parameter  # time outside matrix products over time inside
    memory_rate_fraction: Parameter  # achieved over datasheet memory bandwidth
    scale_up_fraction: Parameter  # achieved over nominal link rate in collectives, within a domain
    scale_out_fraction: Parameter  # the same beyond it
    latency_growth_s: Parameter  # added to a collective per doubling of its ranks
    exposed_data_parallel_fraction: Parameter  # share of data-parallel traffic that backward does not hide
    exposed_tensor_parallel_fraction: Parameter
    exposed_expert_parallel_fraction: Parameter
    step_spread_fraction: Parameter  # standard deviation of one device's step over its mean
    stack_fraction: Parameter  # everything else that differs between software stacks, as a factor on the step
    published_reach_devices: Figure  # the most devices of a published collective; beyond it latency and stack widen
    widening_log_sd: Figure  # added to their log_sd, in quadrature, per doubling beyond it


@fact
class Calibration:
    """A prior, changed by what was measured here."""

    prior: Prior
    told: tuple[str, ...]  # what the local run told about the target's devices
    not_told: tuple[str, ...]  # what it could not tell


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

    @property
    def n_devices_used(self) -> int:
        """Devices that the plan keeps busy."""
        return self.plan.world_size
