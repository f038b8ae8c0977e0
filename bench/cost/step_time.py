"""Seconds of one optimizer step, part by part, for arrays of plans or arrays of parameter draws.

A pass through a stage is matrix products at a fraction of the best measured rate, work outside them in proportion, and
the exposed share of what its collectives take. A step is as many passes as micro-batches in the beat of the slowest
stage, then gradients, optimizer, and the wait for the slowest device. All of it in bf16.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from bench.cost.collectives import all_gather_s, all_reduce_s, hierarchical_all_gather_s, hierarchical_all_to_all_s, send_s
from bench.cost.draws import Draws
from bench.cost.flops import Convention, attention_flops_per_token, expert_flops_per_token, head_flops_per_token, layer_flops_per_token
from bench.cost.layout import Array, Layout
from bench.cost.memory import GRADIENT_BYTES, OPTIMIZER_BYTES, WEIGHT_BYTES
from bench.cost.parameters import expert_parameters, n_parameters
from bench.cost.pipeline import bubble_s, mean_stage_s, slowest_stage_s
from bench.errors import UsageError
from bench.facts.hardware import Cluster, Device, Precision
from bench.facts.model import ModelShape
from bench.facts.plan import Recompute, Sharding
from bench.facts.prediction import Part

ACTIVATION_BYTES = 2  # bf16
OPTIMIZER_TRAFFIC_BYTES = GRADIENT_BYTES + 2 * OPTIMIZER_BYTES + WEIGHT_BYTES  # read gradient and state, write state and weight


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the formulas take: a model laid over a cluster, and the parameters."""

    shape: ModelShape
    layout: Layout
    cluster: Cluster
    draws: Draws

    @property
    def tokens(self) -> Array:
        """Tokens of a micro-batch on one device."""
        return np.asarray(self.layout.micro_batch * self.shape.seq_len / self.layout.cp)

    @property
    def scale_up(self) -> tuple[Array, Array]:
        """(bytes_per_s, latency_s) that collectives reach inside a scale-up domain."""
        link = self.cluster.scale_up
        return np.asarray(link.bytes_per_s.value * self.draws.scale_up_fraction), np.asarray(link.latency_s.value)

    @property
    def scale_out(self) -> tuple[Array, Array]:
        """(bytes_per_s, latency_s) that collectives reach beyond it; the latency is that of one doubling of the ranks."""
        link = self.cluster.scale_out
        rate = link.bytes_per_s.value * self.draws.scale_out_fraction
        return np.asarray(rate), np.asarray(link.latency_s.value + self.draws.latency_growth_s)

    def link(self, span: Array) -> tuple[Array, Array]:
        """(bytes_per_s, latency_s) of a group that spans so many neighbouring devices."""
        inside = span <= self.cluster.scale_up_domain
        up, out = self.scale_up, self.scale_out
        return np.where(inside, up[0], out[0]), np.where(inside, up[1], out[1])

    def inner(self, n_ranks: Array, stride: Array) -> Array:
        """Ranks of a group with this stride that share a scale-up domain."""
        return np.asarray(np.clip(self.cluster.scale_up_domain / stride, 1, n_ranks))


def step_parts(job: Job) -> dict[Part, Array]:
    """Seconds of every part of a step; their sum is the step."""
    layout, shape = job.layout, job.shape
    per_layer = {
        Part.COMPUTE: 3 * forward_layer_s(job),
        Part.RECOMPUTE: recompute_layer_s(job),
        Part.TENSOR_PARALLEL: tensor_parallel_layer_s(job),
        Part.CONTEXT_PARALLEL: context_parallel_layer_s(job),
        Part.EXPERT_PARALLEL: expert_parallel_layer_s(job),
    }
    head_s, layer_s = 3 * forward_head_s(job), np.asarray(sum(per_layer.values()))
    mean_s = mean_stage_s(layer_s, head_s, shape.n_layers, layout.pp)
    slowest_s = slowest_stage_s(layer_s, head_s, shape.n_layers, layout.pp)
    parts = {part: layout.n_micro * shape.n_layers * seconds / layout.pp for part, seconds in per_layer.items()}
    parts[Part.COMPUTE] = parts[Part.COMPUTE] + layout.n_micro * head_s / layout.pp
    parts[Part.PIPELINE_SEND] = pipeline_send_s(job)
    parts[Part.BUBBLE] = bubble_s(mean_s, slowest_s, layout.n_micro, layout.pp, layout.n_virtual)
    parts[Part.DATA_PARALLEL] = data_parallel_s(job, slowest_s)
    parts[Part.OPTIMIZER] = optimizer_s(job)
    parts[Part.STRAGGLER] = straggler_s(job, parts)
    return {part: np.asarray(job.draws.stack_fraction * parts[part]) for part in Part}


def step_s(job: Job) -> Array:
    """Seconds of a step."""
    return np.asarray(sum(step_parts(job).values()))


def matmul_flops_per_s(device: Device) -> float:
    """Best rate that anyone measured for a bf16 product. Raises UsageError where there is none."""
    rate = device.matmul_flops_per_s.get(Precision.BF16)
    if rate is None:
        raise UsageError(
            f"device {device.name} has no matmul_flops_per_s.bf16, the training precision of a target; give it or take another device"
        )
    return rate.value


def forward_layer_s(job: Job) -> Array:
    """Forward seconds of one layer and micro-batch."""
    return _compute_s(job, layer_dense_flops_per_token(job.shape, job.draws))


def layer_dense_flops_per_token(shape: ModelShape, draws: Draws) -> Array:
    """Forward FLOPs of a layer, attention causal, each expert's counted as the dense FLOPs that take as long."""
    routed = expert_flops_per_token(shape)
    dense = layer_flops_per_token(shape, Convention.CAUSAL) - routed
    return np.asarray(dense + routed / draws.expert_kernel_fraction)


def step_flops_per_token(shape: ModelShape, draws: Draws) -> Array:
    """FLOPs of forward and backward pass, counted in the same way."""
    return np.asarray(3 * (shape.n_layers * layer_dense_flops_per_token(shape, draws) + head_flops_per_token(shape)))


def forward_head_s(job: Job) -> Array:
    """Forward seconds of the output head and micro-batch."""
    return _compute_s(job, head_flops_per_token(job.shape))


def recompute_layer_s(job: Job) -> Array:
    """Seconds spent on computing a layer's activations again: nothing, the attention core, or all of the layer."""
    shape, layout = job.shape, job.layout
    attention_s = _compute_s(job, attention_flops_per_token(shape, Convention.CAUSAL))
    selective = np.where(layout.is_recompute(Recompute.SELECTIVE), attention_s, 0.0)
    return np.asarray(np.where(layout.is_recompute(Recompute.FULL), forward_layer_s(job), selective))


def _compute_s(job: Job, flops_per_token: Array | float) -> Array:
    rate = matmul_flops_per_s(job.cluster.device) * job.draws.kernel_fraction
    return np.asarray(job.tokens * flops_per_token / job.layout.tp / rate * (1 + job.draws.other_work_fraction))


def tensor_parallel_layer_s(job: Job) -> Array:
    """Exposed seconds of a layer's four all-reduces, or eight halves of one with sequence parallelism.

    Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4.2.2.
    """
    size = job.tokens * job.shape.d_model * ACTIVATION_BYTES
    return np.asarray(4 * all_reduce_s(size, job.layout.tp, *job.link(job.layout.tp)) * job.draws.exposed_tensor_parallel_fraction)


def context_parallel_layer_s(job: Job) -> Array:
    """Exposed seconds of gathering keys and values in the forward and the backward pass and scattering their gradients.

    Hidden behind attention as tensor-parallel traffic is behind products, for want of a measurement of its own.
    """
    layout, shape = job.layout, job.shape
    size = 2 * job.tokens * layout.cp * shape.n_kv_heads * shape.head_dim / layout.tp * ACTIVATION_BYTES
    exposed = job.draws.exposed_tensor_parallel_fraction
    return np.asarray(3 * all_gather_s(size, layout.cp, *job.link(layout.tp * layout.cp)) * exposed)


def expert_parallel_layer_s(job: Job) -> Array:
    """Exposed seconds of a layer's four all-to-alls: dispatch and combine, forward and backward."""
    layout, shape = job.layout, job.shape
    size = job.tokens * shape.experts_top_k * shape.d_model / layout.tp * ACTIVATION_BYTES
    inner = job.inner(layout.ep, layout.tp * layout.cp)
    once = hierarchical_all_to_all_s(size, layout.ep, inner, job.scale_up, job.scale_out)
    return np.asarray(4 * once * job.draws.exposed_expert_parallel_fraction)


def pipeline_send_s(job: Job) -> Array:
    """Exposed seconds of sending activations and their gradients to the neighbouring stages.

    Plain 1F1B waits for every send; interleaved chunks hide them except while filling and draining.
    """
    layout = job.layout
    size = job.tokens * job.shape.d_model / layout.tp * ACTIVATION_BYTES
    n_sends = 2 * (layout.pp - 1 + np.where(layout.n_virtual > 1, 0, layout.n_micro))
    return np.asarray(n_sends * send_s(size, layout.pp, *job.link(layout.n_devices)))


def local_parameters(shape: ModelShape, layout: Layout) -> tuple[Array, Array]:
    """(dense, routed) parameters of the mean device, before any sharding over data."""
    routed = shape.n_layers * shape.n_experts * expert_parameters(shape)
    per_device = layout.tp * layout.pp
    return (n_parameters(shape) - routed) / per_device, routed / per_device / layout.ep


def data_parallel_s(job: Job, pass_s: Array) -> Array:
    """Exposed seconds of reducing gradients and gathering weights over the ranks that share them.

    A share of the traffic is exposed, and all of it that exceeds the one pass (forward and backward of a micro-batch)
    it can hide behind. ZeRO-3 gathers weights twice and reduces once per micro-batch.
    """
    layout = job.layout
    dense, routed = local_parameters(job.shape, layout)
    weights = _sharing_s(job, WEIGHT_BYTES, dense, routed)
    gradients = _sharing_s(job, GRADIENT_BYTES, dense, routed)
    n_passes = np.where(layout.is_sharding(Sharding.ZERO3), layout.n_micro, 1)
    total = n_passes * (gradients + np.where(layout.is_sharding(Sharding.ZERO3), 2, 1) * weights)
    exposed = job.draws.exposed_data_parallel_fraction * total
    return np.asarray(np.maximum(exposed, total - n_passes * pass_s))


def _sharing_s(job: Job, width_bytes: int, dense: Array, routed: Array) -> Array:
    """Seconds of one all-gather (or reduce-scatter) of all local parameters, experts over their fewer replicas."""
    layout = job.layout
    return _over_replicas_s(job, width_bytes * dense, layout.replicas, layout.tp) + np.where(
        routed > 0, _over_replicas_s(job, width_bytes * routed, layout.replicas / layout.ep, layout.tp * layout.ep), 0.0
    )


def _over_replicas_s(job: Job, size_bytes: Array, n_ranks: Array, stride: Array) -> Array:
    return hierarchical_all_gather_s(size_bytes, n_ranks, job.inner(n_ranks, stride), job.scale_up, job.scale_out)


def optimizer_s(job: Job) -> Array:
    """Seconds of the Adam step over the parameters that a device owns, bound by memory."""
    layout = job.layout
    dense, routed = local_parameters(job.shape, layout)
    shared = ~layout.is_sharding(Sharding.NONE)
    owned = dense / np.where(shared, layout.replicas, 1) + routed / np.where(shared, layout.replicas / layout.ep, 1)
    return np.asarray(owned * OPTIMIZER_TRAFFIC_BYTES / (job.cluster.device.memory_bytes_per_s.value * job.draws.memory_rate_fraction))


def straggler_s(job: Job, parts: dict[Part, Array]) -> Array:
    """Seconds that the mean device waits for the slowest one, on the work that devices do by themselves."""
    own = parts[Part.COMPUTE] + parts[Part.RECOMPUTE] + parts[Part.OPTIMIZER]
    return np.asarray(expected_maximum(job.layout.n_devices) * job.draws.step_spread_fraction * own)


def expected_maximum(n: Array) -> Array:
    """Mean of the largest of `n` standard normal numbers; 0 for one.

    Source: Blom 1958, "Statistical Estimates and Transformed Beta-Variables": the quantile of (n - 0.375) / (n + 0.25).
    """
    return np.asarray(np.vectorize(NormalDist().inv_cdf, otypes=[np.float64])((n - 0.375) / (n + 0.25)))
