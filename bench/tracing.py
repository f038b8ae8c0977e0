"""A trace as asked for: which plan is meant, whether torch can trace it, and the counts of the program beside the formulas'."""

from bench.config.resolve import check_split, resolve_plan
from bench.config.schema import Config
from bench.cost.flops import Convention, flops_per_token
from bench.cost.traffic import padding_factor, step_collectives
from bench.errors import UsageError
from bench.facts.hardware import Precision
from bench.facts.plan import ParallelPlan
from bench.facts.trace import TRACE_VERSION, StepTrace
from bench.run.trace import trace_step
from bench.run.train import is_replicated


def traced_step(config: Config, plan: ParallelPlan) -> StepTrace:
    """The counts of one rank of the target."""
    shape = config.target.model
    micro = 1 if config.train.micro_batch_size == "auto" else config.train.micro_batch_size
    tokens_of_a_device = micro * shape.seq_len / plan.model_parallel_size
    return StepTrace(
        trace_version=TRACE_VERSION,
        target=config.target.name,
        model=shape,
        plan=plan,
        micro_batch_size=micro,
        counts=trace_step(shape, plan, micro),
        formula=step_collectives(shape, plan, micro),
        formula_causal_flops=tokens_of_a_device * flops_per_token(shape, Convention.CAUSAL),
        formula_full_flops=tokens_of_a_device * flops_per_token(shape, Convention.FULL),
        padding_factor=padding_factor(shape, plan),
    )


def traced_plan(config: Config) -> ParallelPlan:
    """The plan on the devices asked for. Raises UsageError where it is open how many, or torch has no way to trace it."""
    _refuse_other_steps(config)
    plan = resolve_plan(config.plan, _n_devices(config))
    if plan.pipeline_parallel_size > 1:
        raise UsageError(
            f"plan.pipeline_parallel_size: {plan.pipeline_parallel_size} given; torch's stages vote on their "
            "shapes first, by a message whose value a pretended tensor does not have; use 1, or plan=fsdp_tp"
        )
    if is_replicated(plan):
        raise UsageError(
            f"plan.sharding: {plan.sharding} given; its whole copies are DistributedDataParallel's, whose reducer takes no pretended "
            "tensors; use plan=zero2, which reduces the same gradients, or plan=fsdp"
        )
    check_split(config.target.model, plan, 1)
    return plan


def _n_devices(config: Config) -> int:
    asked = config.n_devices
    if asked is not None:
        return asked
    if len(config.clusters) > 1:
        names = ", ".join(cluster.name for cluster in config.clusters)
        raise UsageError(
            f"n_devices: null, and {len(config.clusters)} clusters are given ({names}); give n_devices=8, or choose one: cluster=NAME"
        )
    return config.clusters[0].n_devices


def _refuse_other_steps(config: Config) -> None:
    if config.train.precision not in ("auto", Precision.BF16):
        raise UsageError(f"train.precision: {config.train.precision} given; a trace is in bf16; use auto")
    if config.train.global_batch_size != "auto":
        raise UsageError(f"train.global_batch_size: {config.train.global_batch_size} given; a trace is of one pass per step; use auto")
