"""Every `auto` of a configuration, decided from what is here."""

from collections.abc import Mapping
from dataclasses import replace

from bench.config.schema import Config, DeviceRequest, Ladder, PlanRequest, TrainRequest
from bench.errors import DoesNotFit, UsageError
from bench.facts.figure import fact
from bench.facts.hardware import Backend, Precision
from bench.facts.measurement import Survey
from bench.facts.model import ModelShape, NormKind, nearest_divisors
from bench.facts.plan import BatchPlan, ParallelPlan
from bench.facts.run import RunSpec, TrainPolicy

STEPS_IN_BUDGET = 100  # timed steps that the budget should hold when model and batch are chosen here
LARGEST_AUTO_BATCH = 64
USABLE_MEMORY_FRACTION = 0.85


@fact
class Demand:
    """What one sequence of a model asks of one device."""

    flops_per_sequence: float
    fixed_bytes: float  # weights, gradients, optimizer
    bytes_per_sequence: float

    def bytes(self, micro_batch_size: int) -> float:
        """Memory of a training step."""
        return self.fixed_bytes + micro_batch_size * self.bytes_per_sequence


def models(config: Config) -> tuple[ModelShape, ...]:
    """The models that the configuration may run."""
    return tuple(config.model.rungs.values()) if isinstance(config.model, Ladder) else (config.model,)


def resolve_plan(request: PlanRequest, world_size: int) -> ParallelPlan:
    """The plan on `world_size` devices. Raises UsageError where it does not divide them."""
    sizes = {
        "tensor_parallel_size": request.tensor_parallel_size,
        "pipeline_parallel_size": request.pipeline_parallel_size,
        "context_parallel_size": request.context_parallel_size,
    }
    copies = 1
    for size in sizes.values():
        copies *= max(size, 1)
    data_parallel_size = world_size // copies if request.data_parallel_size == "auto" else request.data_parallel_size
    if max(data_parallel_size, 1) * copies != world_size:
        raise UsageError(_does_not_divide(request, sizes, copies, world_size))
    return ParallelPlan(
        **sizes,
        data_parallel_size=data_parallel_size,
        data_parallel_replicate_size=request.data_parallel_replicate_size,
        n_virtual_stages=request.n_virtual_stages,
        expert_parallel_size=request.expert_parallel_size,
        sharding=request.sharding,
        recompute=request.recompute,
    )


def _does_not_divide(request: PlanRequest, sizes: Mapping[str, int], copies: int, world_size: int) -> str:
    if request.data_parallel_size == "auto":
        product = " * ".join(f"{name} {size}" for name, size in sizes.items() if size > 1)
        return f"plan: {product} = {copies} does not divide the {world_size} devices here; use {_below(copies, world_size)} in all"
    given = request.data_parallel_size
    return (
        f"plan.data_parallel_size: {given} * {copies} is not the {world_size} devices here; use auto, or device.n_devices={given * copies}"
    )


def _below(size: int, world_size: int) -> int:
    return max(d for d in range(1, world_size + 1) if world_size % d == 0 and d <= size)


def check_split(shape: ModelShape, plan: ParallelPlan, n_micro_batches: int) -> None:
    """Nothing; raises UsageError where the model or the batch cannot be split so."""
    tp, cp, ep, pp = plan.tensor_parallel_size, plan.context_parallel_size, plan.expert_parallel_size, plan.pipeline_parallel_size
    rules = (
        ("tensor_parallel_size", tp, "n_kv_heads", shape.n_kv_heads),
        ("tensor_parallel_size", tp, "vocab_size", shape.vocab_size),
        ("tensor_parallel_size", tp, "d_ff", shape.d_ff),
        ("tensor_parallel_size", tp, "d_ff_expert", shape.d_ff_expert),
        ("tensor_parallel_size * 2 context_parallel_size", tp * (2 * cp if cp > 1 else 1), "seq_len", shape.seq_len),
        ("expert_parallel_size", ep, "n_experts", shape.n_experts),
        ("pipeline_parallel_size * n_virtual_stages", pp * plan.n_virtual_stages, "n_layers", shape.n_layers),
    )
    for name, size, whole_name, whole in rules:
        if whole % size:
            raise UsageError(f"plan.{name}: {size} does not divide model.{whole_name} {whole}; use {nearest_divisors(size, whole)}")
    if ep > 1 and not shape.is_moe:
        raise UsageError(f"plan.expert_parallel_size: {ep} given; {shape.name} has no experts; use 1, or model=grok_tiny")
    copies, holders = plan.data_parallel_replicate_size, plan.data_parallel_size // ep * cp
    if holders % copies:
        raise UsageError(
            f"plan.data_parallel_replicate_size: {copies} does not divide the {holders} ranks that hold one share of the experts; "
            f"use {nearest_divisors(copies, holders)}"
        )
    if tp > 1 and (shape.bias or shape.norm is NormKind.LAYER):
        raise UsageError(f"plan.tensor_parallel_size: {tp} given; biases and LayerNorm are not split; use a model with RMSNorm")
    if plan.n_virtual_stages > 1 and (pp == 1 or n_micro_batches % pp):
        raise UsageError(
            f"plan.n_virtual_stages: {plan.n_virtual_stages} given; interleaving needs stages, and rounds of {pp} micro-batches, not "
            f"{n_micro_batches}; change train.global_batch_size"
        )
    if n_micro_batches < pp:
        few = f"{pp} stages need {pp} micro-batches, not {n_micro_batches}"
        raise UsageError(f"plan.pipeline_parallel_size: {few}; raise train.global_batch_size")


def check_compile(request: TrainRequest, plan: ParallelPlan) -> None:
    """Nothing; raises UsageError where a compiled model does not train as the plan says."""
    if request.compile and plan.tensor_parallel_size > 1:
        given = f"true given with plan.tensor_parallel_size {plan.tensor_parallel_size}"
        raise UsageError(f"train.compile: {given}; compiled layers of split tensors get other gradients than one process; use false")


def resolve_batch(request: TrainRequest, plan: ParallelPlan, micro_batch_size: int) -> BatchPlan:
    """The batch with its `auto` sizes filled in: one pass per step where no global batch is given, two per stage in a pipeline."""
    per_pass = micro_batch_size * plan.data_parallel_size
    n_passes = 1 if plan.pipeline_parallel_size == 1 else 2 * plan.pipeline_parallel_size
    global_batch = n_passes * per_pass if request.global_batch_size == "auto" else request.global_batch_size
    return BatchPlan(micro_batch_size=micro_batch_size, global_batch_size=global_batch, data_parallel_size=plan.data_parallel_size)


def check_early(config: Config, world_size: int) -> None:
    """Nothing; raises UsageError for what is known to be wrong before any rank is started."""
    plan = resolve_plan(config.plan, world_size)
    check_compile(config.train, plan)
    micro = config.train.micro_batch_size
    batch = None if micro == "auto" else resolve_batch(config.train, plan, micro)
    if isinstance(config.model, ModelShape):
        check_split(config.model, plan, batch.n_micro_batches if batch else 2 * plan.pipeline_parallel_size)


def needs_trial(config: Config) -> bool:
    """Whether anything is left open that a short trial on the device decides."""
    return isinstance(config.model, Ladder) or config.train.precision == "auto" or config.train.micro_batch_size == "auto"


def resolve(config: Config, survey: Survey, demands: Mapping[str, Demand]) -> Config:
    """The configuration with nothing left open. `demands` holds, by model name, what each model asks of a device."""
    precision = resolve_precision(config, survey)
    plan = resolve_plan(config.plan, survey.world_size)
    check_compile(config.train, plan)
    shape = _resolve_model(config, survey, demands, precision)
    micro = _resolve_micro_batch(config, survey, demands[shape.name], precision, plan.data_parallel_size)
    batch = resolve_batch(config.train, plan, micro)
    check_split(shape, plan, batch.n_micro_batches)
    return replace(
        config,
        model=shape,
        device=DeviceRequest(backend=survey.backend, n_devices=survey.world_size, threads_per_rank=survey.threads_per_rank),
        plan=replace(config.plan, data_parallel_size=plan.data_parallel_size),
        train=replace(config.train, precision=precision, micro_batch_size=micro, global_batch_size=batch.global_batch_size),
    )


def resolve_precision(config: Config, survey: Survey) -> Precision:
    """The precision asked for, or the fastest of the trial, or bf16 on an accelerator and fp32 on a CPU that was not tried."""
    if config.train.precision != "auto":
        return config.train.precision
    if survey.trial_flops_per_s:
        return max(survey.trial_flops_per_s, key=lambda precision: survey.trial_flops_per_s[precision])
    return Precision.FP32 if survey.backend is Backend.CPU else Precision.BF16


def _seconds_per_sequence(demand: Demand, survey: Survey, precision: Precision) -> float:
    rate = survey.trial_flops_per_s.get(precision) or max(survey.trial_flops_per_s.values())
    return demand.flops_per_sequence / rate


def _resolve_model(config: Config, survey: Survey, demands: Mapping[str, Demand], precision: Precision) -> ModelShape:
    """The model asked for, or the largest that fits the memory and leaves enough steps within the budget."""
    if isinstance(config.model, ModelShape):
        return config.model
    step_s = config.measure.budget_s / STEPS_IN_BUDGET
    room = USABLE_MEMORY_FRACTION * survey.memory_bytes
    rungs = [r for r in config.model.rungs.values() if demands[r.name].bytes(1) <= room]
    if not rungs:
        raise DoesNotFit(f"model: no rung of '{config.model.name}' fits into {room / 2**30:.1f} GiB per rank; use fewer ranks per machine")
    fast = [r for r in rungs if _seconds_per_sequence(demands[r.name], survey, precision) <= step_s]
    return fast[-1] if fast else rungs[0]


def _resolve_micro_batch(config: Config, survey: Survey, demand: Demand, precision: Precision, data_parallel_size: int) -> int:
    """The size asked for, or the largest power of two that fits memory, budget and the global batch."""
    if config.train.micro_batch_size != "auto":
        return config.train.micro_batch_size
    room = USABLE_MEMORY_FRACTION * survey.memory_bytes
    if demand.bytes(1) > room:
        raise DoesNotFit(
            f"model: one sequence needs {demand.bytes(1) / 2**30:.1f} GiB of the {room / 2**30:.1f} GiB per rank; use a smaller model"
        )
    asked = config.train.global_batch_size
    share = LARGEST_AUTO_BATCH if asked == "auto" else max(1, asked // data_parallel_size)
    step_s = config.measure.budget_s / STEPS_IN_BUDGET

    def suits(size: int) -> bool:
        divides = asked == "auto" or asked % (size * data_parallel_size) == 0
        return divides and demand.bytes(size) <= room and size * _seconds_per_sequence(demand, survey, precision) <= step_s

    sizes = [2**k for k in range(LARGEST_AUTO_BATCH.bit_length()) if 2**k <= share]
    return max((size for size in sizes if suits(size)), default=1)


def run_spec(config: Config) -> RunSpec:
    """The run that a resolved configuration describes."""
    assert isinstance(config.model, ModelShape)
    assert isinstance(config.device.n_devices, int)
    assert isinstance(config.device.threads_per_rank, int)
    assert isinstance(config.train.micro_batch_size, int)
    assert isinstance(config.device.backend, Backend)
    assert isinstance(config.train.precision, Precision)
    plan = resolve_plan(config.plan, config.device.n_devices)
    return RunSpec(
        backend=config.device.backend,
        world_size=config.device.n_devices,
        threads_per_rank=config.device.threads_per_rank,
        model=config.model,
        plan=plan,
        batch=resolve_batch(config.train, plan, config.train.micro_batch_size),
        train=TrainPolicy(
            precision=config.train.precision,
            compiled=config.train.compile,
            learning_rate=config.train.learning_rate,
            weight_decay=config.train.weight_decay,
            seed=config.train.seed,
            checkpoint_every_steps=config.train.checkpoint_every_steps,
        ),
        measure=config.measure,
    )
