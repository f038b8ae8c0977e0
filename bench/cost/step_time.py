"""Seconds of one optimizer step, part by part, for one workload or many thousands at once.

A layer takes what its products, memory traffic and exposed collectives need, or what launching its kernels needs, whichever is
longer. A step is as many passes as micro-batches in the beat of the slowest stage, then what data-parallel traffic the backward
pass did not hide, the optimizer, and the drag of a large world. Coefficients (`bench.cost.coefficients`) say how far each term
is from its physical bound; they are fitted on published runs.
"""

from dataclasses import dataclass

import numpy as np

from bench.cost.coefficients import Coefficients
from bench.cost.data_parallel import data_parallel_s, optimizer_s
from bench.cost.layer import Layer, layer_of
from bench.cost.layout import Array
from bench.cost.links import links_of
from bench.cost.pipeline import beat_s, mean_stage_s, n_blocking_sends
from bench.cost.workload import Workload
from bench.facts.prediction import Part

ACTIVATION_BYTES = 2  # bf16


@dataclass(frozen=True)
class _Stage:
    """Seconds of a pass through a stage."""

    layer: Layer
    beat_s: Array  # of the slowest stage
    mean_s: Array
    send_s: Array  # exposed, to and from the neighbours


def step_parts(work: Workload, by: Coefficients) -> dict[Part, Array]:
    """Seconds of every part of a step; their sum is the step."""
    stage = _stage_of(work, by)
    layers = work.n_micro * work.n_layers / work.pp  # passes through a layer on the mean device
    layer, n = stage.layer, work.n_micro
    drain = (work.pp - 1) / work.n_virtual
    parts = {
        Part.COMPUTE: layers * layer.compute_s + n * layer.head_s / work.pp,
        Part.RECOMPUTE: layers * layer.recompute_s,
        Part.LAUNCH: layers * layer.launch_s,
        Part.TENSOR_PARALLEL: layers * layer.tensor_parallel_s,
        Part.CONTEXT_PARALLEL: layers * layer.context_parallel_s,
        Part.EXPERT_PARALLEL: layers * layer.expert_parallel_s,
        Part.PIPELINE_SEND: (n_exposed_sends(work) + drain) * stage.send_s + by["blocking_send_s"] * n_blocking_sends(work, by),
        Part.BUBBLE: n * (stage.beat_s - stage.mean_s) + drain * idle_share(work) * stage.mean_s,
        Part.DATA_PARALLEL: data_parallel_s(work, by, stage.beat_s),
        Part.OPTIMIZER: optimizer_s(work, by),
        Part.OVERHEAD: by["step_overhead_s"] * np.ones_like(work.tokens),
    }
    software = software_factor(work, by)
    scaled = {part: np.asarray(software * seconds) for part, seconds in parts.items()}
    drag = by["straggler_per_doubling"] * np.log2(work.n_nodes)
    scaled[Part.STRAGGLER] = np.asarray(drag * sum(scaled.values()))
    return scaled


def step_s(work: Workload, by: Coefficients) -> Array:
    """Seconds of a step."""
    return np.asarray(sum(step_parts(work, by).values()))


def log_device_s_per_token(work: Workload, by: Coefficients) -> Array:
    """Natural logarithm of the device-seconds that a token takes: what published speeds are compared in."""
    return np.asarray(np.log(step_s(work, by) * work.n_devices / work.step_tokens))


def software_factor(work: Workload, by: Coefficients) -> Array:
    """What the stack makes of a step that physics does not: its line of descent and its year."""
    family = by["torch_factor"] ** work.is_torch * by["deepspeed_factor"] ** work.is_deepspeed * by["jax_factor"] ** work.is_jax
    return np.asarray(by["stack_factor"] * family * by["progress_per_year"] ** -work.years)


def _stage_of(work: Workload, by: Coefficients) -> _Stage:
    layer = layer_of(work, by)
    return _Stage(
        layer=layer,
        beat_s=beat_s(layer.total_s, layer.head_s, work),
        mean_s=mean_stage_s(layer.total_s, layer.head_s, work.n_layers, work.pp),
        send_s=pipeline_send_s(work, by),
    )


def idle_share(work: Workload) -> Array:
    """Share of filling and draining that stays idle: all, or what the products for weight gradients do not fill, which take as long as
    those for inputs and as the forward pass. Source: Qi et al. 2024, arXiv 2401.10241, ZB-H1: F + B - W for F + B + W."""
    return np.where(work.zero_bubble > 0, 1 / 3, 1.0)


def n_exposed_sends(work: Workload) -> Array:
    """Micro-batches whose sends are seen in the steady state: all, but for Megatron's interleaved schedule, where every send goes beside
    another chunk's computing. Source: NVIDIA NeMo documentation, "Communication Overlap": only those of fill and flush are exposed."""
    return np.asarray(np.where((work.n_virtual > 1) & (work.is_torch < 1), 0.0, work.n_micro))


def pipeline_send_s(work: Workload, by: Coefficients) -> Array:
    """Exposed seconds, per micro-batch, of sending activations forward and their gradients back."""
    links = links_of(work, by)
    size = work.tokens * work.d_model / work.tp * ACTIVATION_BYTES
    once = size / links.out_bytes_per_s + 2 * links.scale_up_latency_s
    return np.asarray(np.where(work.pp > 1, by["exposed_pipeline_fraction"] * work.n_virtual * 2 * once, 0.0))
