"""What one measured run is asked to do, with nothing left open."""

from bench.facts.figure import fact, require
from bench.facts.hardware import Backend, Precision
from bench.facts.model import ModelShape
from bench.facts.plan import BatchPlan, ParallelPlan


@fact
class MeasurePolicy:
    """When warm-up and measuring end."""

    steps: int | None  # exactly so many timed steps; None measures until the interval is narrow enough
    target_ci: float  # half width of the confidence interval of tokens/s, over tokens/s
    confidence: float
    budget_s: float  # seconds of measuring at most, warm-up not counted
    min_steps: int  # timed steps at least
    warmup_min_steps: int
    warmup_max_steps: int
    warmup_tolerance: float  # relative change between two stretches of warm-up that counts as steady
    launches: int = 1  # independent launches, each with its own processes, warm-up and interval
    breakdown_steps: int = 10  # steps after the timed ones that are cut into phases; 0 leaves the breakdown out
    trace: bool = False  # write a torch.profiler trace of a few more steps
    record_meter: bool = False  # write how long the operations of a few more steps take
    meter: str | None = None  # a file so written: waits of those lengths stand for this run's own operations
    collective_timeout_s: float = 300.0  # a rank that has not come to a collective by then is given up, and the run with it
    grace_s: float = 20.0  # from being asked to stop to leaving, with what was measured kept

    def __post_init__(self) -> None:
        require(self.steps is None or self.steps >= 2, f"steps {self.steps} must be at least 2, or null to stop by target_ci")
        require(0 < self.target_ci < 1, f"target_ci {self.target_ci:g} must lie between 0 and 1; 0.02 is 2 %")
        require(0.5 <= self.confidence < 1, f"confidence {self.confidence:g} must lie between 0.5 and 1; 0.95 is usual")
        require(self.budget_s > 0, f"budget_s {self.budget_s:g} must be above 0")
        require(self.min_steps >= 2, f"min_steps {self.min_steps} must be at least 2")
        require(self.warmup_min_steps >= 1, f"warmup_min_steps {self.warmup_min_steps} must be at least 1")
        require(
            self.warmup_max_steps >= self.warmup_min_steps,
            f"warmup_max_steps {self.warmup_max_steps} is below warmup_min_steps {self.warmup_min_steps}",
        )
        require(self.warmup_tolerance > 0, f"warmup_tolerance {self.warmup_tolerance:g} must be above 0")
        require(self.launches >= 1, f"launches {self.launches} must be at least 1")
        require(self.collective_timeout_s > 0, f"collective_timeout_s {self.collective_timeout_s:g} must be above 0")
        require(self.grace_s >= 0, f"grace_s {self.grace_s:g} must not be negative")
        require(self.breakdown_steps >= 0, f"breakdown_steps {self.breakdown_steps} must not be negative")


@fact
class TrainPolicy:
    """Numerics of the training step."""

    precision: Precision
    compiled: bool
    learning_rate: float
    weight_decay: float
    seed: int
    checkpoint_every_steps: int | None = None  # None: no state is saved

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"learning_rate {self.learning_rate:g} must be above 0")
        require(self.weight_decay >= 0, f"weight_decay {self.weight_decay:g} must not be negative")
        require(self.seed >= 0, f"seed {self.seed} must not be negative")
        every = self.checkpoint_every_steps
        require(every is None or every >= 1, f"checkpoint_every_steps {every} must be at least 1, or null to save nothing")


@fact
class RunSpec:
    """One measured run: every rank receives the same."""

    backend: Backend
    world_size: int
    threads_per_rank: int
    model: ModelShape
    plan: ParallelPlan
    batch: BatchPlan
    train: TrainPolicy
    measure: MeasurePolicy

    def __post_init__(self) -> None:
        require(self.plan.world_size == self.world_size, f"the plan uses {self.plan.world_size} devices, the run has {self.world_size}")

    @property
    def tokens_per_step(self) -> int:
        """Tokens that the whole world trains on in one optimizer step."""
        return self.batch.global_batch_size * self.model.seq_len
