"""Bytes that a plan needs on its fullest device, and those that its first pipeline stage reserves.

Mixed-precision Adam holds 18 bytes per parameter: 2 for bf16 weights, 4 for fp32 gradients, 12 for fp32 weights and two
moments. Source: Rajbhandari et al. 2020, arXiv 1910.02054, section 3.1 (with gradients accumulated in fp32). What single stacks
hold beyond that is in stack_memory.
"""

import numpy as np

from bench.cost.layout import Array, Layout, layout_of
from bench.cost.parameters import (
    attention_parameters,
    dense_parameters,
    embedding_parameters,
    expert_parameters,
    head_parameters,
    layer_parameters,
    n_parameters,
)
from bench.cost.pipeline import (
    balanced_layers,
    layers_of_first_stage,
    layers_of_last_stage,
    micro_batches_in_flight,
    micro_batches_in_flight_last,
)
from bench.cost.stack_memory import CONTEXT_BYTES, FUSED, NEED_LOG_SD, StackMemory
from bench.facts.hardware import Device, Precision
from bench.facts.model import ModelShape
from bench.facts.plan import BatchPlan, ParallelPlan, Recompute, Sharding
from bench.facts.prediction import MemoryEstimate

WEIGHT_BYTES = 2
OPTIMIZER_BYTES = 12
LOGIT_BYTES = FUSED.logit_bytes


def memory(shape: ModelShape, plan: ParallelPlan, batch: BatchPlan, device: Device, by: StackMemory = FUSED) -> MemoryEstimate:
    """The estimate for one plan on one device."""
    return estimate(shape, layout_of(plan, batch), device, by)


def estimate(shape: ModelShape, layout: Layout, device: Device, by: StackMemory = FUSED) -> MemoryEstimate:
    """The same for a layout that holds one plan."""
    state, activations = stage_bytes(shape, layout, by)
    return MemoryEstimate(
        state_bytes=float(state),
        activation_bytes=float(activations),
        overhead_bytes=float(overhead_bytes(state + activations, by)),
        capacity_bytes=device.memory_bytes.value,
        need_log_sd=NEED_LOG_SD,
    )


def total_bytes(shape: ModelShape, layout: Layout, by: StackMemory = FUSED) -> Array:
    """Bytes on the fullest device of every plan."""
    held = np.sum(stage_bytes(shape, layout, by), axis=0)
    return np.asarray(held + overhead_bytes(held, by))


def overhead_bytes(held_bytes: Array, by: StackMemory = FUSED) -> Array:
    """Bytes that must be free on top: the driver's, and those that the allocator cannot use."""
    return np.asarray(CONTEXT_BYTES + by.need_fraction * held_bytes)


def first_stage_reserved_bytes(shape: ModelShape, layout: Layout, by: StackMemory = FUSED) -> Array:
    """Bytes that a device of the first stage is expected to reserve at its peak, as torch's allocator counts them."""
    held = np.sum(_first_stage_bytes(shape, layout, by), axis=0)
    return np.asarray(held * (1 + by.reserved_fraction) + by.reserved_bytes)


def stage_bytes(shape: ModelShape, layout: Layout, by: StackMemory = FUSED) -> tuple[Array, Array]:
    """(state, activations) in bytes of the fuller of the first and the last stage, together the largest of any stage."""
    first, last = _first_stage_bytes(shape, layout, by), _last_stage_bytes(shape, layout, by)
    fuller = sum(first) >= sum(last)
    return np.where(fuller, first[0], last[0]), np.where(fuller, first[1], last[1])


def _first_stage_bytes(shape: ModelShape, layout: Layout, by: StackMemory) -> tuple[Array, Array]:
    n_layers, _ = _end_layers(shape, layout, by)
    in_flight = micro_batches_in_flight(layout.n_micro, layout.pp, layout.n_virtual)
    head = np.where(layout.pp > 1, 0, 1)  # a single stage holds both ends of the model
    matrix = embedding_parameters(shape) + head * head_parameters(shape)
    return _state_bytes(shape, layout, n_layers, matrix, by), _activation_bytes(shape, layout, n_layers, in_flight, head, by=by)


def _last_stage_bytes(shape: ModelShape, layout: Layout, by: StackMemory) -> tuple[Array, Array]:
    _, n_layers = _end_layers(shape, layout, by)
    in_flight = micro_batches_in_flight_last(layout.n_micro, layout.pp, layout.n_virtual)
    matrix = np.asarray(shape.vocab_size * shape.d_model)  # a tied embedding is copied here
    return _state_bytes(shape, layout, n_layers, matrix, by), _activation_bytes(shape, layout, n_layers, in_flight, np.asarray(1), by=by)


def _end_layers(shape: ModelShape, layout: Layout, by: StackMemory) -> tuple[Array, Array]:
    """Layers of the first and of the last stage."""
    if not by.balanced_stages:
        return layers_of_first_stage(shape.n_layers, layout.pp), layers_of_last_stage(shape.n_layers, layout.pp)
    active = attention_parameters(shape) + dense_parameters(shape) + shape.experts_top_k * expert_parameters(shape)
    return balanced_layers(shape.n_layers, shape.vocab_size * shape.d_model / active, layout.pp)


def _state_bytes(shape: ModelShape, layout: Layout, n_layers: Array, matrix_parameters: Array, by: StackMemory) -> Array:
    """Weights, gradients and optimizer state; experts are dealt out over ep ranks, which then have that many fewer replicas."""
    experts = shape.n_experts * expert_parameters(shape)
    dense = (n_layers * (layer_parameters(shape) - experts) + matrix_parameters) / layout.tp
    routed = n_layers * experts / layout.tp / layout.ep
    whole = dense * bytes_per_parameter(layout, layout.replicas, by)
    return np.asarray(whole + routed * bytes_per_parameter(layout, layout.replicas / layout.ep, by))


def bytes_per_parameter(layout: Layout, n_replicas: Array, by: StackMemory = FUSED) -> Array:
    """State bytes of one parameter on one of its `n_replicas` ranks, of which hybrid sharding lets only a part share shards."""
    weight_and_gradient = WEIGHT_BYTES + by.gradient_bytes
    whole = weight_and_gradient + OPTIMIZER_BYTES
    copied = np.where(layout.is_sharding(Sharding.ZERO3), 0, weight_and_gradient)
    copied = np.where(layout.is_sharding(Sharding.ZERO2), WEIGHT_BYTES, copied)
    copied = np.where(layout.is_sharding(Sharding.NONE), whole, copied)
    return np.asarray(copied + (whole - copied) / np.maximum(1.0, n_replicas / layout.replicate))


def _activation_bytes(shape: ModelShape, layout: Layout, n_layers: Array, in_flight: Array, has_head: Array, *, by: StackMemory) -> Array:
    """Kept activations of all micro-batches in flight, the layers live in the backward pass, the logits, and what is gathered."""
    tokens = layout.micro_batch * shape.seq_len / layout.cp
    kept = kept_bytes_per_token(shape, layout, by)
    live = by.live_layers * _layer_bytes_per_token(shape, by)
    logits = has_head * by.logit_bytes * shape.vocab_size
    gathered = _gathered_bytes_per_token(shape, layout, n_layers, by)
    return np.asarray(tokens * ((n_layers * in_flight * kept + live + logits) / layout.tp + gathered))


def _gathered_bytes_per_token(shape: ModelShape, layout: Layout, n_layers: Array, by: StackMemory) -> Array:
    """Bytes of whole rows that every tensor-parallel rank gathers: those in use, and those that wait to be freed."""
    waits = (layout.pp == 1) & ~layout.is_recompute(Recompute.FULL)
    columns = by.gathered_bytes + by.waiting_bytes * n_layers * waits
    return np.asarray(np.where(layout.tp > 1, shape.d_model * columns, 0.0))


def kept_bytes_per_token(shape: ModelShape, layout: Layout, by: StackMemory = FUSED) -> Array:
    """Bytes per token and layer that wait for the backward pass, before division by tp (sequence parallelism divides all)."""
    whole = _layer_bytes_per_token(shape, by)
    selective = whole - WEIGHT_BYTES * shape.n_heads * shape.head_dim  # of attention only the inputs stay
    kept = np.where(layout.is_recompute(Recompute.SELECTIVE), selective, whole)
    return np.asarray(np.where(layout.is_recompute(Recompute.FULL), WEIGHT_BYTES * shape.d_model, kept))


def _layer_bytes_per_token(shape: ModelShape, by: StackMemory) -> int:
    """Bytes of all activations of a layer in bf16, attention fused so that no score is stored.

    Inputs and outputs of the norms, queries, keys, values, attention output; the inputs of the down projection and of
    the activation before it; copies of the tokens that travel to experts. Without fused element-wise kernels also the rotated
    queries and keys, the attention output put in order, and the activated gate.
    Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4.1, less dropout and scores, with grouped queries.
    """
    n_norms = 4 if shape.sandwich_norm else 2
    attention = 2 * (shape.n_heads + shape.n_kv_heads) * shape.head_dim
    columns = (3 if shape.gated else 2) * (shape.d_ff + shape.experts_top_k * shape.d_ff_expert)
    travelling = 2 * shape.experts_top_k * shape.d_model
    activated = shape.gated * (shape.d_ff + shape.experts_top_k * shape.d_ff_expert)
    eager = by.element_wise_kept * ((2 * shape.n_heads + shape.n_kv_heads) * shape.head_dim + activated)
    return WEIGHT_BYTES * (2 * n_norms * shape.d_model + attention + columns + travelling + eager)


def run_bytes(shape: ModelShape, micro_batch_size: int, precision: Precision = Precision.FP32) -> float:
    """Bytes of a one-device run with fp32 master weights, nothing sharded and nothing recomputed.

    16 bytes per parameter (weights, gradients, two moments, all fp32), activations of every layer (twice the bytes in
    fp32), logits. Without a micro-batch: what does not grow with it.
    """
    width = 2 if precision is Precision.FP32 else 1
    activations = width * (shape.n_layers + FUSED.live_layers) * _layer_bytes_per_token(shape, FUSED) + LOGIT_BYTES * shape.vocab_size
    return float(16 * n_parameters(shape) + micro_batch_size * shape.seq_len * activations)
