"""Bytes that a plan needs on its fullest device.

Mixed-precision Adam holds 18 bytes per parameter: 2 for bf16 weights, 4 for fp32 gradients, 12 for fp32 weights and two
moments. Source: Rajbhandari et al. 2020, arXiv 1910.02054, section 3.1 (with gradients accumulated in fp32).
"""

import numpy as np

from bench.cost.layout import Array, Layout, layout_of
from bench.cost.parameters import embedding_parameters, expert_parameters, head_parameters, layer_parameters, n_parameters
from bench.cost.pipeline import layers_of_first_stage, layers_of_last_stage, micro_batches_in_flight, micro_batches_in_flight_last
from bench.facts.hardware import Device, Precision
from bench.facts.model import ModelShape
from bench.facts.plan import BatchPlan, ParallelPlan, Recompute, Sharding
from bench.facts.prediction import MemoryEstimate
from bench.facts.units import GIB

WEIGHT_BYTES = 2
GRADIENT_BYTES = 4
OPTIMIZER_BYTES = 12
LOGIT_BYTES = 8  # fp32 probability and its gradient
LIVE_LAYERS = 2  # in the backward pass: activations and their gradients
CONTEXT_BYTES = 2 * GIB  # CUDA context, kernels, communication buffers
FRAGMENTATION_FRACTION = 0.05  # 3 to 7 % between allocated and reserved. Source: SimuMax's B200 runs of Megatron-LM, 2026


def memory(shape: ModelShape, plan: ParallelPlan, batch: BatchPlan, device: Device) -> MemoryEstimate:
    """The estimate for one plan on one device."""
    state, activations = stage_bytes(shape, layout_of(plan, batch))
    return MemoryEstimate(
        state_bytes=float(state),
        activation_bytes=float(activations),
        overhead_bytes=float(overhead_bytes(state + activations)),
        capacity_bytes=device.memory_bytes.value,
    )


def total_bytes(shape: ModelShape, layout: Layout) -> Array:
    """Bytes on the fullest device of every plan."""
    held = np.sum(stage_bytes(shape, layout), axis=0)
    return np.asarray(held + overhead_bytes(held))


def overhead_bytes(held_bytes: Array) -> Array:
    """Bytes that the allocator and the driver take on top."""
    return np.asarray(CONTEXT_BYTES + FRAGMENTATION_FRACTION * held_bytes)


def stage_bytes(shape: ModelShape, layout: Layout) -> tuple[Array, Array]:
    """(state, activations) in bytes of the fuller of the first and the last stage, together the largest of any stage."""
    first, last = _first_stage_bytes(shape, layout), _last_stage_bytes(shape, layout)
    fuller = sum(first) >= sum(last)
    return np.where(fuller, first[0], last[0]), np.where(fuller, first[1], last[1])


def _first_stage_bytes(shape: ModelShape, layout: Layout) -> tuple[Array, Array]:
    n_layers = layers_of_first_stage(shape.n_layers, layout.pp)
    in_flight = micro_batches_in_flight(layout.n_micro, layout.pp, layout.n_virtual)
    head = np.where(layout.pp > 1, 0, 1)  # a single stage holds both ends of the model
    matrix = embedding_parameters(shape) + head * head_parameters(shape)
    return _state_bytes(shape, layout, n_layers, matrix), _activation_bytes(shape, layout, n_layers, in_flight, head)


def _last_stage_bytes(shape: ModelShape, layout: Layout) -> tuple[Array, Array]:
    n_layers = layers_of_last_stage(shape.n_layers, layout.pp)
    in_flight = micro_batches_in_flight_last(layout.n_micro, layout.pp, layout.n_virtual)
    matrix = np.asarray(shape.vocab_size * shape.d_model)  # a tied embedding is copied here
    return _state_bytes(shape, layout, n_layers, matrix), _activation_bytes(shape, layout, n_layers, in_flight, np.asarray(1))


def _state_bytes(shape: ModelShape, layout: Layout, n_layers: Array, matrix_parameters: Array) -> Array:
    """Weights, gradients and optimizer state; experts are dealt out over ep ranks, which then have that many fewer replicas."""
    experts = shape.n_experts * expert_parameters(shape)
    dense = (n_layers * (layer_parameters(shape) - experts) + matrix_parameters) / layout.tp
    routed = n_layers * experts / layout.tp / layout.ep
    return np.asarray(
        dense * bytes_per_parameter(layout, layout.replicas) + routed * bytes_per_parameter(layout, layout.replicas / layout.ep)
    )


def bytes_per_parameter(layout: Layout, n_replicas: Array) -> Array:
    """State bytes of one parameter on one of its `n_replicas` ranks."""
    copied = np.where(layout.is_sharding(Sharding.ZERO3), 0, WEIGHT_BYTES + GRADIENT_BYTES)
    copied = np.where(layout.is_sharding(Sharding.ZERO2), WEIGHT_BYTES, copied)
    copied = np.where(layout.is_sharding(Sharding.NONE), WEIGHT_BYTES + GRADIENT_BYTES + OPTIMIZER_BYTES, copied)
    return np.asarray(copied + (WEIGHT_BYTES + GRADIENT_BYTES + OPTIMIZER_BYTES - copied) / n_replicas)


def _activation_bytes(shape: ModelShape, layout: Layout, n_layers: Array, in_flight: Array, has_head: Array) -> Array:
    """Kept activations of all micro-batches in flight, the layers live in the backward pass, and the logits."""
    tokens = layout.micro_batch * shape.seq_len / layout.cp
    kept = kept_bytes_per_token(shape, layout)
    live = LIVE_LAYERS * _layer_bytes_per_token(shape)
    logits = has_head * LOGIT_BYTES * shape.vocab_size
    return np.asarray(tokens / layout.tp * (n_layers * in_flight * kept + live + logits))


def kept_bytes_per_token(shape: ModelShape, layout: Layout) -> Array:
    """Bytes per token and layer that wait for the backward pass, before division by tp (sequence parallelism divides all)."""
    whole = _layer_bytes_per_token(shape)
    selective = whole - WEIGHT_BYTES * shape.n_heads * shape.head_dim  # of attention only the inputs stay
    kept = np.where(layout.is_recompute(Recompute.SELECTIVE), selective, whole)
    return np.asarray(np.where(layout.is_recompute(Recompute.FULL), WEIGHT_BYTES * shape.d_model, kept))


def _layer_bytes_per_token(shape: ModelShape) -> int:
    """Bytes of all activations of a layer in bf16, attention fused so that no score is stored.

    Inputs and outputs of the norms, queries, keys, values, attention output; the inputs of the down projection and of
    the activation before it; copies of the tokens that travel to experts.
    Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4.1, less dropout and scores, with grouped queries.
    """
    n_norms = 4 if shape.sandwich_norm else 2
    attention = 2 * (shape.n_heads + shape.n_kv_heads) * shape.head_dim
    columns = (3 if shape.gated else 2) * (shape.d_ff + shape.experts_top_k * shape.d_ff_expert)
    travelling = 2 * shape.experts_top_k * shape.d_model
    return WEIGHT_BYTES * (2 * n_norms * shape.d_model + attention + columns + travelling)


def run_bytes(shape: ModelShape, micro_batch_size: int, precision: Precision = Precision.FP32) -> float:
    """Bytes of a one-device run with fp32 master weights, nothing sharded and nothing recomputed.

    16 bytes per parameter (weights, gradients, two moments, all fp32), activations of every layer (twice the bytes in
    fp32), logits. Without a micro-batch: what does not grow with it.
    """
    width = 2 if precision is Precision.FP32 else 1
    activations = width * (shape.n_layers + LIVE_LAYERS) * _layer_bytes_per_token(shape) + LOGIT_BYTES * shape.vocab_size
    return float(16 * n_parameters(shape) + micro_batch_size * shape.seq_len * activations)
