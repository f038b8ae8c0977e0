"""Seconds of one layer and one micro-batch on one device, forward and backward, and of the output head."""

from dataclasses import dataclass

import numpy as np

from bench.cost.coefficients import Coefficients
from bench.cost.collectives import all_gather_s, soft_maximum
from bench.cost.layout import Array
from bench.cost.links import Links, links_of
from bench.cost.workload import Workload

ACTIVATION_BYTES = WEIGHT_BYTES = 2  # bf16
BACKWARD_ATTENTION = 2.5  # a fused backward pass computes the scores again: five products where the forward has two
STREAM_FRACTION = 0.8  # of the datasheet's memory rate; see memory_rate
FORWARD_SHARE_OF_TRAFFIC = 0.36  # of the bytes outside products: the backward pass reads inputs and incoming gradients
# Bytes outside products, forward and backward, at bf16: two norms, two residual sums and their gradients per column of the
# model; rotary embedding and the copies around attention; the nonlinearity and its gradient per column of the feed-forward.
# Source: counted from the operations of a Llama layer as Korthikanti et al. 2022, arXiv 2205.05198, section 4.1 counts storage.
NORM_BYTES, ATTENTION_BYTES, COLUMN_BYTES = 44, 8, 10


@dataclass(frozen=True)
class Layer:
    """Seconds of a pass, forward and backward."""

    compute_s: Array
    recompute_s: Array
    tensor_parallel_s: Array  # exposed, as the next two
    context_parallel_s: Array
    expert_parallel_s: Array
    floor_s: Array  # what launching its kernels takes
    total_s: Array  # no less than that
    head_s: Array

    @property
    def launch_s(self) -> Array:
        """What launching adds to the work."""
        work = self.compute_s + self.recompute_s + self.tensor_parallel_s + self.context_parallel_s + self.expert_parallel_s
        return np.asarray(self.total_s - work)


def layer_of(work: Workload, by: Coefficients) -> Layer:
    """The times of a layer of a workload."""
    links = links_of(work, by)
    forward = forward_s(work, by)
    compute = 3 * forward.products + weight_passes(work) * forward.weights + (1 + BACKWARD_ATTENTION) * forward.attention
    compute = compute + forward.scores + forward.traffic + forward.dispatch
    recompute = recompute_s(work, by, forward)
    tensor, context, expert = tensor_parallel_s(work, by, links), context_parallel_s(work, by, links), expert_parallel_s(work, by, links)
    floor = launch_floor_s(work, by, links)
    total = soft_maximum(compute + recompute + tensor + context + expert, floor)
    return Layer(
        compute_s=compute,
        recompute_s=recompute,
        tensor_parallel_s=tensor,
        context_parallel_s=context,
        expert_parallel_s=expert,
        floor_s=floor,
        total_s=total,
        head_s=head_s(work, by),
    )


@dataclass(frozen=True)
class Forward:
    """Seconds by kind of work: products, weights and attention of the forward pass alone, the others forward and backward."""

    products: Array  # their FLOPs, and the bytes of their operands but for the weights
    weights: Array  # reading them once
    attention: Array
    scores: Array  # stored and read again where attention is not fused
    traffic: Array  # bytes outside products
    dispatch: Array  # of tokens to experts and back, in memory


def forward_s(work: Workload, by: Coefficients) -> Forward:
    """The work of a layer by kind."""
    m, tp, rate = work.tokens, work.tp, memory_rate(work)
    kernel = kernel_fraction(work, by)
    narrow = work.linear_flops_per_s * by["fp8_fraction"] * by["fp4_factor"] ** work.is_fp4
    linear = np.where(work.is_narrow > 0, narrow, work.matmul_flops_per_s) * kernel
    dense_bytes = 4 * work.d_model + (work.kv_width + 2 * work.d_model + 1.5 * work.ff_columns) / tp
    dense = m * (work.projection_flops + work.dense_flops) / tp / linear
    dense = dense + ACTIVATION_BYTES * m * dense_bytes / rate
    experts = m * work.expert_flops / tp / (linear * by["expert_fraction"] * by["fp8_expert_fraction"] ** work.is_narrow)
    attention = by["attention_fraction"] * by["attention_progress_per_year"] ** np.clip(work.years, -2, 2)
    return Forward(
        products=np.asarray(dense + experts),
        weights=np.asarray(WEIGHT_BYTES * (work.layer_parameters + work.expert_parameters / work.ep) / tp / rate),
        attention=np.asarray(m * work.attention_flops / tp / (work.matmul_flops_per_s * kernel * attention)),
        scores=np.asarray(work.stores_scores * m * work.seq_len * work.score_heads / tp * by["score_bytes"] / rate),
        traffic=traffic_s(work, by),
        dispatch=np.asarray(by["dispatch_passes"] * m * work.experts_top_k * work.d_model * ACTIVATION_BYTES / tp / rate),
    )


def weight_passes(work: Workload) -> Array:
    """Bytes that a weight moves in a pass, forward and backward, over those of reading it once: the products of both passes read it,
    and its gradient is added to what earlier micro-batches left, read and written in the dtype that is reduced."""
    return np.asarray(2 + 2 * work.gradient_bytes / WEIGHT_BYTES)


def memory_rate(work: Workload) -> Array:
    """Bytes per second that streams reach: 0.8 of the datasheet.

    Source: 0.72 to 0.78 for copies and 0.87 to 0.96 for triads on A100, H100, GB200 (RRZE-HPC/gpu-benches at 1038c5d;
    stas00/ml-engineering at 744d01e).
    """
    return np.asarray(STREAM_FRACTION * work.memory_bytes_per_s)


def kernel_fraction(work: Workload, by: Coefficients) -> Array:
    """Rate of products inside a model over the best single product, by architecture and family of stacks."""
    architecture = by["kernel_factor_volta"] ** work.is_volta * by["kernel_factor_ampere"] ** work.is_ampere
    architecture = architecture * by["kernel_factor_blackwell"] ** work.is_blackwell * by["kernel_factor_cdna"] ** work.is_cdna
    newer = work.is_torch * (1 - work.is_ampere) * (1 - work.is_volta)
    return np.asarray(by["kernel_fraction"] * architecture * by["kernel_factor_torch"] ** newer)


def traffic_s(work: Workload, by: Coefficients) -> Array:
    """Seconds of norms, residual sums, nonlinearities, casts: memory-bound, forward and backward."""
    eager = by["eager_traffic_factor"] ** np.maximum(work.is_torch, work.is_deepspeed)
    factor = by["traffic_factor"] * eager * by["compiled_traffic_factor"] ** work.is_compiled
    norms = NORM_BYTES * work.d_model / np.where(work.sequence_parallel > 0, work.tp, 1.0)
    rest = (ATTENTION_BYTES * work.d_model + COLUMN_BYTES * (work.ff_columns + work.expert_columns)) / work.tp
    unfused = by["eager_traffic_factor"] ** (work.is_torch * (1 - work.is_compiled))
    columns = (4 * work.d_model + work.ff_columns + work.expert_columns) / work.tp
    casts = work.is_narrow * by["cast_bytes"] * unfused * columns
    return np.asarray(work.tokens * (factor * (norms + rest) + casts) / memory_rate(work))


def recompute_s(work: Workload, by: Coefficients, forward: Forward) -> Array:
    """Seconds of computing activations again: a share of the layer's forward pass, or attention alone."""
    traffic = FORWARD_SHARE_OF_TRAFFIC * (forward.scores + forward.traffic + forward.dispatch)
    whole = by["recompute_fraction"] * (forward.products + forward.weights + forward.attention + traffic)
    attention = work.stores_scores * (FORWARD_SHARE_OF_TRAFFIC * forward.scores + forward.attention)
    return np.asarray(work.full_recompute * whole + work.selective_recompute * attention)


def launch_floor_s(work: Workload, by: Coefficients, links: Links) -> Array:
    """Least seconds of a layer, whatever its size: the host launches its kernels one by one.

    On a congested network the collectives inside a node wait too, each by a step per rank.
    """
    eager = by["launch_floor_eager_factor"] ** np.maximum(work.is_torch, work.is_deepspeed)
    floor = by["launch_floor_s"] * eager * np.where(work.tp > 1, by["launch_floor_tensor_factor"], 1.0) * (1 + work.full_recompute / 3)
    floor = floor + by["launch_floor_expert_s"] * (work.expert_flops > 0)
    congested = tensor_calls(work) * by["congested_tensor_factor"] * links.congestion_s * work.tp / work.domain_devices
    return np.asarray(floor + np.where(work.tp > 1, congested, 0.0))


def head_s(work: Workload, by: Coefficients) -> Array:
    """Seconds of the output projection and the loss, forward and backward, and of the embedding's gradient where that is on the same
    device: a table as large as the head's, filled, read, and added to what is there."""
    products = 3 * work.tokens * work.head_flops / (work.matmul_flops_per_s * kernel_fraction(work, by))
    tables = np.where(work.pp > 1, 1, 2) * work.vocab_size * work.d_model
    traffic = by["logit_bytes"] * work.tokens * work.vocab_size + WEIGHT_BYTES * weight_passes(work) * tables
    return np.asarray((products + traffic / memory_rate(work)) / work.tp)


def tensor_calls(work: Workload) -> Array:
    """Halves of an all-reduce in a layer: four forward, four backward, four more where the forward pass runs again.

    Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4.2.2.
    """
    return np.asarray(8 + 4 * work.full_recompute)


def tensor_parallel_s(work: Workload, by: Coefficients, links: Links) -> Array:
    """Exposed seconds of gathering and scattering activations; across domains every call waits once per further domain.

    A stack may run calls beside the products that need them, but not in layers of experts, in fp4, or across domains. Source: NVIDIA
    NeMo documentation, "Communication Overlap"; scripts/performance of NVIDIA-NeMo/Megatron-Bridge (tp_comm_overlap, off for nvfp4).
    """
    size = work.tokens * work.d_model * ACTIVATION_BYTES * (work.tp - 1) / work.tp
    n_domains = np.maximum(1.0, work.tp / work.domain_devices)
    across = np.minimum(links.out_bytes_per_s * work.domain_devices, links.up_bytes_per_s)
    beside = work.overlaps_tensor * (1 - work.is_fp4) * (work.expert_flops == 0)
    within = by["exposed_tensor_fraction"] * (1 - beside + beside * by["overlapped_tensor_factor"]) / links.up_bytes_per_s
    once = size * np.where(n_domains > 1, 1 / across, within)
    once = once + links.scale_up_latency_s + by["tensor_crossing_s"] * (n_domains - 1)
    return np.asarray(np.where(work.tp > 1, tensor_calls(work) * once, 0.0))


def context_parallel_s(work: Workload, by: Coefficients, links: Links) -> Array:
    """Exposed seconds of gathering keys and values, forward and backward, and scattering their gradients."""
    size = by["exposed_context_fraction"] * work.micro_batch * work.seq_len * work.kv_width * ACTIVATION_BYTES / work.tp
    inner = np.clip(work.domain_devices / work.tp, 1.0, work.cp)
    return np.asarray(np.where(work.cp > 1, 3 * all_gather_s(size, work.cp, inner, links), 0.0))


def expert_parallel_s(work: Workload, by: Coefficients, links: Links) -> Array:
    """Exposed seconds of four all-to-alls: dispatch and combine, forward and backward; what leaves the domain decides."""
    size = work.tokens * work.experts_top_k * work.d_model * ACTIVATION_BYTES / work.tp
    span = work.ep * work.tp
    beyond = size * (1 - np.minimum(1.0, work.domain_devices / span)) / (links.out_bytes_per_s / work.oversubscription)
    within = size * (1 - 1 / work.ep) / links.up_bytes_per_s
    once = np.where(span > work.domain_devices, beyond, within)
    return np.asarray(np.where(work.ep > 1, 4 * by["exposed_expert_fraction"] * once, 0.0))
