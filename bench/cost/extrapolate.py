"""The full-size run on a cluster: the plan, its step, and what follows from it, with how sure that is."""

import math

import numpy as np

from bench.cost.advice import advice
from bench.cost.calibrate import Calibration
from bench.cost.coefficients import coefficients_of
from bench.cost.flops import Convention, flops_per_token
from bench.cost.layout import Layout, batch_of, plan_of
from bench.cost.memory import memory
from bench.cost.posterior import Posterior
from bench.cost.search import SAFE_PROBABILITY, best_plan
from bench.cost.stack_memory import stack_memory
from bench.cost.step_time import step_parts
from bench.cost.table import Table, single
from bench.cost.uncertainty import NORMAL_P90, causes_of, predicted
from bench.cost.utilization import mfu
from bench.cost.workload import Workload, workload_of
from bench.facts.figure import Figure, Interval, Provenance, weakest
from bench.facts.hardware import Cluster, Precision
from bench.facts.model import Target
from bench.facts.plan import ParallelPlan
from bench.facts.prediction import MemoryEstimate, Part, Prediction, Prior, StepPart
from bench.facts.stack import Stack
from bench.facts.units import SECONDS_PER_DAY, SECONDS_PER_HOUR

# What the time of a part rests on: the figure of the cluster beside the fitted coefficients, and both in words.
BASIS: dict[Part, tuple[str, str]] = {
    Part.COMPUTE: ("matmul", "FLOPs over measured matmul rate, bytes over memory rate, fitted fractions"),
    Part.RECOMPUTE: ("matmul", "forward pass once more"),
    Part.LAUNCH: ("none", "fitted least time of a layer"),
    Part.TENSOR_PARALLEL: ("scale_up", "activation bytes, exposed share"),
    Part.CONTEXT_PARALLEL: ("scale_up", "keys and values, exposed share"),
    Part.EXPERT_PARALLEL: ("scale_out", "all-to-all bytes, exposed share"),
    Part.PIPELINE_SEND: ("scale_out", "activation bytes between stages, exposed share"),
    Part.BUBBLE: ("matmul", "1F1B schedule and uneven stages"),
    Part.DATA_PARALLEL: ("scale_out", "gradient and weight bytes that backward does not hide"),
    Part.OPTIMIZER: ("memory", "optimizer bytes over memory rate"),
    Part.OVERHEAD: ("none", "fitted seconds per step"),
    Part.STRAGGLER: ("none", "fitted drag per doubling of the nodes"),
}


def project(target: Target, cluster: Cluster, calibration: Calibration, stack: Stack, rental: Figure | None) -> Prediction:
    """The prediction for the fastest plan that fits. Raises DoesNotFit where none does."""
    layout = best_plan(target, cluster, stack, calibration.posterior)
    return predict(target, cluster, calibration, stack=stack, layout=layout, rental=rental)


def predict(
    target: Target, cluster: Cluster, calibration: Calibration, *, stack: Stack, layout: Layout, rental: Figure | None
) -> Prediction:
    """The prediction for a given plan."""
    plan, batch, posterior = plan_of(layout), batch_of(layout), calibration.posterior
    table = single(workload_of(target.model, layout, cluster, stack, target.precision), series=-1)
    step = step_interval(posterior, table, plan.world_size)
    parts = median_parts(posterior, table.work, cluster, step.p50, target.precision)
    tokens_per_s = _over(batch.global_batch_size * target.model.seq_len, step)
    need = memory(target.model, plan, batch, cluster.device, stack_memory(stack))
    days = _over(target.n_tokens.value / SECONDS_PER_DAY, tokens_per_s)
    return Prediction(
        target=target.name,
        cluster=cluster.name,
        n_devices=cluster.n_devices,
        plan=plan,
        batch=batch,
        memory=need,
        step_s=step,
        parts=parts,
        uncertainty=causes_of(posterior, table),
        next_runs=advice(posterior, table, target, layout=layout, cluster=cluster, stack=stack),
        tokens_per_s=tokens_per_s,
        mfu_causal=_mfu(tokens_per_s, target, Convention.CAUSAL, cluster, plan),
        mfu_full=_mfu(tokens_per_s, target, Convention.FULL, cluster, plan),
        days=days,
        n_tokens=target.n_tokens.value,
        rental_usd=None if rental is None else _times(days, plan.world_size * rental.value * SECONDS_PER_DAY / SECONDS_PER_HOUR),
        rental_basis=_rental_basis(rental, plan),
        told=calibration.told,
        not_told=(*calibration.not_told, *_beyond(target, cluster, posterior.prior, plan), *_unsafe(need)),
        provenance=weakest(*(part.provenance for part in parts if part.time_s > 0)),
        precision=target.precision,
    )


def step_interval(posterior: Posterior, table: Table, n_devices: int) -> Interval:
    """Seconds of a step of a table of one row; wider beyond what anyone published."""
    mean, sd = predicted(posterior, table)
    beyond = posterior.prior.widening_log_sd.value * doublings_beyond_reach(posterior.prior, n_devices)
    spread = NORMAL_P90 * math.hypot(float(sd[0]), beyond)
    middle = math.exp(float(mean[0])) * float(table.work.step_tokens[0]) / n_devices
    return Interval(p10=middle * math.exp(-spread), p50=middle, p90=middle * math.exp(spread))


def doublings_beyond_reach(prior: Prior, n_devices: int) -> float:
    """Doublings of the device count beyond what anyone published; 0 within."""
    return max(0.0, math.log2(n_devices / prior.published_reach_devices.value))


def median_parts(posterior: Posterior, work: Workload, cluster: Cluster, total_s: float, precision: Precision) -> tuple[StepPart, ...]:
    """Parts of the step at the stack's coefficients, scaled to add up to `total_s`; the largest takes the rounding."""
    seconds = {part: float(np.ravel(value)[0]) for part, value in step_parts(work, coefficients_of(posterior.log_theta)).items()}
    scale = total_s / sum(seconds.values())
    scaled = {part: value * scale for part, value in seconds.items()}
    largest = max(scaled, key=lambda part: scaled[part])
    scaled[largest] += total_s - math.fsum(scaled.values())
    measured = posterior.evidence is not None
    return tuple(
        StepPart(part=part, time_s=scaled[part], provenance=_provenance(part, cluster, precision, measured), basis=BASIS[part][1])
        for part in Part
    )


def _provenance(part: Part, cluster: Cluster, precision: Precision, measured: bool) -> Provenance:
    device = cluster.device
    figures = {
        "matmul": device.matmul_flops_per_s.get(precision),
        "memory": device.memory_bytes_per_s,
        "scale_up": cluster.scale_up.bytes_per_s,
        "scale_out": cluster.scale_out.bytes_per_s,
    }
    rests_on = figures.get(BASIS[part][0])
    if measured and part in (Part.COMPUTE, Part.RECOMPUTE, Part.OPTIMIZER):
        return Provenance.MEASURED
    return weakest(Provenance.FITTED, *([rests_on.provenance] if rests_on else []))


def _over(amount: float, divisor: Interval) -> Interval:
    """The amount over an uncertain divisor."""
    return Interval(p10=amount / divisor.p90, p50=amount / divisor.p50, p90=amount / divisor.p10)


def _times(values: Interval, factor: float) -> Interval:
    return Interval(p10=values.p10 * factor, p50=values.p50 * factor, p90=values.p90 * factor)


def _mfu(tokens_per_s: Interval, target: Target, convention: Convention, cluster: Cluster, plan: ParallelPlan) -> Interval:
    """Utilization of the peak of the devices in use in the target's precision, in a convention of counting attention."""
    peak, flops = cluster.device.peak_flops_per_s[target.precision].value, flops_per_token(target.model, convention)
    rates = (tokens_per_s.p10, tokens_per_s.p50, tokens_per_s.p90)
    most = plan.world_size * peak / flops  # tokens/s at the peak: the interval ends there
    p10, p50, p90 = (mfu(min(rate, most), flops, plan.world_size, peak) for rate in rates)
    return Interval(p10=p10, p50=p50, p90=p90)


def _rental_basis(rental: Figure | None, plan: ParallelPlan) -> str:
    if rental is None:
        return "n/a: no rental price for this device"
    return f"{plan.world_size:,} devices in use at ${rental.value:.2f} per device-hour, no failures counted ({rental.source})"


def _unsafe(need: MemoryEstimate) -> tuple[str, ...]:
    """That a plan may well not fit."""
    if need.fits_probability >= SAFE_PROBABILITY:
        return ()
    return (f"that it fits: the chance is {need.fits_probability:.0%}, and no plan reaches {SAFE_PROBABILITY:.0%}, or this one was given",)


def _beyond(target: Target, cluster: Cluster, prior: Prior, plan: ParallelPlan) -> tuple[str, ...]:
    """What no published run tells about this one."""
    sentences = []
    reach = prior.published_reach_devices.value
    if doublings_beyond_reach(prior, plan.world_size) > 0:
        sentences.append(
            f"how collectives and stacks behave on so many devices: no published collective goes beyond {reach:,.0f}; "
            "the interval is widened with the distance"
        )
    if plan.world_size < 0.95 * cluster.n_devices:
        sentences.append(
            f"a use for {cluster.n_devices - plan.world_size:,} of {cluster.n_devices:,} devices: at most "
            f"{target.max_global_batch_size.value:,.0f} sequences per step keep no more busy to advantage"
        )
    if cluster.oversubscription.value > 1:
        sentences.append(
            "what oversubscribed links cost rings: groups are taken to be laid along the topology; expert traffic pays in full"
        )
    return tuple(sentences)
