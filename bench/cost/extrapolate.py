"""The full-size run on a cluster: the plan, its step, and what follows from it, with how sure that is."""

import math

from bench.cost.draws import doublings_beyond_reach, draws, interval, medians, parameter_of
from bench.cost.flops import Convention, flops_per_token
from bench.cost.layout import Layout, batch_of, plan_of
from bench.cost.memory import memory
from bench.cost.search import best_plan
from bench.cost.step_time import Job, step_parts, step_s
from bench.cost.utilization import mfu
from bench.facts.figure import Figure, Interval, Provenance, weakest
from bench.facts.hardware import Cluster, Precision
from bench.facts.model import ModelShape, Target
from bench.facts.plan import ParallelPlan
from bench.facts.prediction import Calibration, Part, Prediction, Prior, StepPart
from bench.facts.units import SECONDS_PER_DAY, SECONDS_PER_HOUR

# What the time of a part rests on: parameters of the prior, the figure of the cluster, and both in words.
BASIS: dict[Part, tuple[tuple[str, ...], str, str]] = {
    Part.COMPUTE: (
        ("kernel_fraction", "expert_kernel_fraction", "other_work_fraction"),
        "matmul",
        "FLOPs over measured matmul rate x kernel fraction",
    ),
    Part.RECOMPUTE: (("kernel_fraction", "other_work_fraction"), "matmul", "forward FLOPs once more"),
    Part.TENSOR_PARALLEL: (("scale_up_fraction", "exposed_tensor_parallel_fraction"), "scale_up", "all-reduce bytes, exposed share"),
    Part.CONTEXT_PARALLEL: (("scale_up_fraction", "exposed_tensor_parallel_fraction"), "scale_up", "keys and values, exposed share"),
    Part.EXPERT_PARALLEL: (("scale_out_fraction", "exposed_expert_parallel_fraction"), "scale_out", "all-to-all bytes, exposed share"),
    Part.PIPELINE_SEND: (("scale_out_fraction", "latency_growth_s"), "scale_out", "activation bytes between stages"),
    Part.BUBBLE: (("kernel_fraction", "other_work_fraction"), "matmul", "1F1B schedule and uneven stages"),
    Part.DATA_PARALLEL: (
        ("scale_out_fraction", "exposed_data_parallel_fraction", "latency_growth_s"),
        "scale_out",
        "gradient and weight bytes, exposed share",
    ),
    Part.OPTIMIZER: (("memory_rate_fraction",), "memory", "optimizer bytes over memory rate"),
    Part.STRAGGLER: (("step_spread_fraction",), "matmul", "slowest of all devices, normal spread"),
}


def project(target: Target, cluster: Cluster, calibration: Calibration, rental_usd_per_device_hour: Figure | None) -> Prediction:
    """The prediction for the fastest plan that fits. Raises DoesNotFit where none does."""
    layout = best_plan(target, cluster, calibration.prior)
    return predict(target, cluster, calibration, layout, rental_usd_per_device_hour)


def predict(target: Target, cluster: Cluster, calibration: Calibration, layout: Layout, rental: Figure | None) -> Prediction:
    """The prediction for a given plan."""
    plan, batch, prior = plan_of(layout), batch_of(layout), calibration.prior
    step = step_interval(target.model, layout, cluster, prior)
    parts = median_parts(target.model, layout, cluster, prior, step.p50)
    tokens_per_s = _over(batch.global_batch_size * target.model.seq_len, step)
    days = _over(target.n_tokens.value / SECONDS_PER_DAY, tokens_per_s)
    return Prediction(
        target=target.name,
        cluster=cluster.name,
        n_devices=cluster.n_devices,
        plan=plan,
        batch=batch,
        memory=memory(target.model, plan, batch, cluster.device),
        step_s=step,
        parts=parts,
        tokens_per_s=tokens_per_s,
        mfu_causal=_mfu(tokens_per_s, target.model, Convention.CAUSAL, cluster, plan),
        mfu_full=_mfu(tokens_per_s, target.model, Convention.FULL, cluster, plan),
        days=days,
        n_tokens=target.n_tokens.value,
        rental_usd=None if rental is None else _times(days, plan.world_size * rental.value * SECONDS_PER_DAY / SECONDS_PER_HOUR),
        rental_basis=_rental_basis(rental, plan),
        told=calibration.told,
        not_told=(*calibration.not_told, *_beyond(target, cluster, prior, plan)),
        provenance=weakest(prior.stack_fraction.provenance, *(part.provenance for part in parts if part.time_s > 0)),
    )


def step_interval(shape: ModelShape, layout: Layout, cluster: Cluster, prior: Prior) -> Interval:
    """Seconds of a step over all draws of the prior."""
    spread = draws(prior, cluster.device.name, int(layout.n_devices))
    return interval(step_s(Job(shape=shape, layout=layout, cluster=cluster, draws=spread)))


def median_parts(shape: ModelShape, layout: Layout, cluster: Cluster, prior: Prior, total_s: float) -> tuple[StepPart, ...]:
    """Parts of the step at the medians of the prior, scaled to add up to `total_s`; the largest takes the rounding."""
    seconds = step_parts(Job(shape=shape, layout=layout, cluster=cluster, draws=medians(prior, cluster.device.name)))
    scale = total_s / sum(float(value) for value in seconds.values())
    scaled = {part: float(value) * scale for part, value in seconds.items()}
    largest = max(scaled, key=lambda part: scaled[part])
    scaled[largest] += total_s - math.fsum(scaled.values())
    return tuple(
        StepPart(part=part, time_s=time_s, provenance=_provenance(part, cluster, prior), basis=BASIS[part][2])
        for part, time_s in scaled.items()
    )


def _provenance(part: Part, cluster: Cluster, prior: Prior) -> Provenance:
    names, figure, _ = BASIS[part]
    device = cluster.device
    figures = {
        "matmul": device.matmul_flops_per_s.get(Precision.BF16),
        "memory": device.memory_bytes_per_s,
        "scale_up": cluster.scale_up.bytes_per_s,
        "scale_out": cluster.scale_out.bytes_per_s,
    }
    rests_on = figures[figure]
    assert rests_on is not None
    return weakest(rests_on.provenance, *(parameter_of(prior, name, device.name).provenance for name in names))


def _over(amount: float, divisor: Interval) -> Interval:
    """The amount over an uncertain divisor."""
    return Interval(p10=amount / divisor.p90, p50=amount / divisor.p50, p90=amount / divisor.p10)


def _times(values: Interval, factor: float) -> Interval:
    return Interval(p10=values.p10 * factor, p50=values.p50 * factor, p90=values.p90 * factor)


def _mfu(tokens_per_s: Interval, shape: ModelShape, convention: Convention, cluster: Cluster, plan: ParallelPlan) -> Interval:
    """Utilization of the devices in use, in a convention of counting attention."""
    peak, flops = cluster.device.peak_flops_per_s[Precision.BF16].value, flops_per_token(shape, convention)
    p10, p50, p90 = (mfu(rate, flops, plan.world_size, peak) for rate in (tokens_per_s.p10, tokens_per_s.p50, tokens_per_s.p90))
    return Interval(p10=p10, p50=p50, p90=p90)


def _rental_basis(rental: Figure | None, plan: ParallelPlan) -> str:
    if rental is None:
        return "n/a: no rental price for this device"
    return f"{plan.world_size:,} devices in use at ${rental.value:.2f} per device-hour, no failures counted ({rental.source})"


def _beyond(target: Target, cluster: Cluster, prior: Prior, plan: ParallelPlan) -> tuple[str, ...]:
    """What no published run tells about this one."""
    sentences = []
    reach = prior.published_reach_devices.value
    if doublings_beyond_reach(prior, plan.world_size) > 0:
        sentences.append(
            f"how collectives and stacks behave on so many devices: no published collective goes beyond {reach:,.0f}; "
            "latency and stack are widened with the distance"
        )
    if plan.world_size < 0.95 * cluster.n_devices:
        sentences.append(
            f"a use for {cluster.n_devices - plan.world_size:,} of {cluster.n_devices:,} devices: at most "
            f"{target.max_global_batch_size.value:,.0f} sequences per step keep no more busy to advantage"
        )
    if cluster.oversubscription.value > 1:
        sentences.append("what oversubscribed links cost: groups are taken to be laid along the topology, so that rings do not feel it")
    return tuple(sentences)
