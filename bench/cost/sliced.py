"""What a timed slice tells of the coefficients: one device's share of a layer, beside what the cost model expects of it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bench.cost.calibrate import own_work, usual_site
from bench.cost.coefficients import NAMES, Coefficients, coefficients_of, log_values
from bench.cost.collectives import soft_maximum
from bench.cost.layer import layer_of
from bench.cost.layout import layout_of
from bench.cost.observation import Observation, Observed, kindred, sorted_out
from bench.cost.step_time import software_factor
from bench.cost.table import STEP
from bench.cost.workload import Workload
from bench.facts.hardware import HALF, Device, Precision
from bench.facts.model import ModelShape
from bench.facts.plan import BatchPlan, ParallelPlan
from bench.facts.prediction import Prior
from bench.facts.profile import SliceMeasurement, SlicePart, SliceSpec
from bench.facts.published import PublishedSetup

# What carries over from a layer alone to a layer in a step (heat, neighbours, memory). Assumed, as whole runs repeat (TRANSFER_LOG_SD
# of bench.cost.calibrate); what the formulas miss of any set-up comes on top, from the prior.
LAYERS_LOG_SD, ENDS_LOG_SD = 0.10, 0.20
# What all slices have in common: layers alone, in our own trainer, run faster than the same layers in the steps that the prior was
# fitted to, which also wait for one another. Assumed; the first five, on an H200 and in bursts (benchmarks/h200), ran 1.3 to
# 1.7 times as fast.
SLICE_LOG_SD = 0.30
Seconds = Callable[[Workload, Coefficients], float]


def from_slice(prior: Prior, measured: SliceMeasurement, sliced: Device | None, device: Device) -> Observed:
    """What a slice tells of a cluster's device; nothing where it was timed on a device with another chip."""
    spec, reason = measured.spec, _why_not_comparable(measured, sliced, device)
    if sliced is None or reason:
        return Observed(not_told=(f"the layers of {spec.target} on {device.name}: {reason}",))
    source = f"slice of {spec.target} timed on {measured.environment.started_at[:10]}"
    expected = to_be_sliced(prior, spec.model, spec.plan, spec.micro_batch_size, sliced)
    layers = _seen(expected[0], f"{spec.n_layers} layers of the slice", measured.layers, spec.n_layers)
    found, name = kindred([layers, _seen(expected[1], "embedding, head and loss of the slice", measured.ends, 1)], sliced, device)
    unseen = "what links and the network take: a slice crosses none"
    return sorted_out(prior, found, name, source) + Observed(not_told=(unseen,))


def to_be_sliced(prior: Prior, shape: ModelShape, plan: ParallelPlan, micro_batch_size: int, device: Device) -> list[Observation]:
    """What a slice of one layer and the ends would observe; `surprise` is less the log of the seconds expected."""
    work = slice_work(shape, plan, micro_batch_size, device)
    missed = float(np.hypot(prior.shape_log_sd.value, prior.series_log_sd.value))
    missed = float(np.hypot(missed, prior.coefficients["stack_factor"].stack_log_sd))  # our own trainer is not the target's stack
    return [
        _expected(prior, work, "layers", _layer_s, float(np.hypot(LAYERS_LOG_SD, missed))),
        _expected(prior, work, "ends", _ends_s, float(np.hypot(ENDS_LOG_SD, missed))),
    ]


def is_slice_of(spec: SliceSpec, setup: PublishedSetup) -> bool:
    """Whether a slice is of this run's own layer: the same widths, split alike, and as many sequences where the run tells."""
    shape, plan = spec.model, spec.plan
    widths = (setup.d_model, setup.n_heads, setup.seq_len, setup.n_experts or 0, setup.moe_d_ff if shape.is_moe else setup.d_ff)
    own = (shape.d_model, shape.n_heads, shape.seq_len, shape.n_experts, shape.d_ff_expert if shape.is_moe else shape.d_ff)
    split = tuple(size or 1 for size in (setup.tp, setup.cp, setup.ep))
    alike = split == (plan.tensor_parallel_size, plan.context_parallel_size, plan.expert_parallel_size)
    return widths == own and alike and setup.micro_batch in (None, spec.micro_batch_size)


def _why_not_comparable(measured: SliceMeasurement, sliced: Device | None, device: Device) -> str | None:
    """Why a slice is silent about a device; None where it is not."""
    if sliced is None or not sliced.has_chip_of(device):
        return f"the slice was timed on {measured.device_name}, and a device tells of its own chip"
    if measured.spec.precision not in HALF:
        return f"the slice ran in {measured.spec.precision.value}, slices are compared in bf16"
    return None


def slice_work(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int, device: Device) -> Workload:
    """The slice as a run of our own trainer, which does not compile it."""
    dp = plan.data_parallel_size
    batch = BatchPlan(micro_batch_size=micro_batch_size, global_batch_size=micro_batch_size * dp, data_parallel_size=dp)
    site = usual_site(device, device.scale_up_domain)
    return own_work(shape, layout_of(plan, batch), site, Precision.BF16, fuses_capped=False, compiled=False)


def _layer_s(work: Workload, by: Coefficients) -> float:
    """Seconds of a layer, forward and backward, nothing sent."""
    layer = layer_of(work, by)
    return float(soft_maximum(layer.compute_s + layer.recompute_s, layer.floor_s))


def _ends_s(work: Workload, by: Coefficients) -> float:
    return float(layer_of(work, by).head_s)


def _expected(prior: Prior, work: Workload, what: str, expected_s: Seconds, log_sd: float) -> Observation:
    """The observation still to be made of a part; what software makes of a step is as the prior has it."""
    center = log_values(prior)
    here = np.log(expected_s(work, coefficients_of(center)))
    moved = [np.log(expected_s(work, coefficients_of(center + STEP * unit))) for unit in np.eye(len(NAMES))]
    software = float(np.log(software_factor(work, coefficients_of(center))))
    slopes = (np.array(moved) - here) / STEP
    return Observation(what=what, slopes=slopes, surprise=float(-here - software), log_sd=log_sd, shared_log_sd=SLICE_LOG_SD)


def _seen(expected: Observation, what: str, part: SlicePart, n_alike: int) -> Observation:
    """The forward and backward pass of a part; its optimizer steps what a plan would share, and is left out."""
    seconds = (part.forward.median_s + part.backward.median_s) / n_alike
    return replace(expected, what=what, surprise=expected.surprise + float(np.log(seconds)))
