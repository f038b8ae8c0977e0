"""What is timed, as arrays: models, plans, sites and stacks of one run or of many thousands, each field of one length.

Every field is an array of the same shape, or of one that broadcasts; formulas price one plan, a table of published runs, or
all plans of a search alike. Rates are of one device and one direction unless the name says node.
"""

from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bench.cost.flops import (
    Convention,
    attention_flops_per_token,
    attention_projection_flops_per_token,
    dense_flops_per_token,
    expert_flops_per_token,
    head_flops_per_token,
)
from bench.cost.layout import Array, Layout
from bench.cost.parameters import embedding_parameters, expert_parameters, head_parameters, layer_parameters
from bench.errors import UsageError
from bench.facts.hardware import NARROW, Architecture, Cluster, Device, Precision
from bench.facts.model import ModelShape
from bench.facts.plan import Recompute, Sharding
from bench.facts.stack import Stack, StackFamily

REFERENCE_YEAR = 2024  # years of a stack are counted from here
# Network message of the clusters behind the fitted coefficients: ib_write_lat, 5 us at most (oracle-quickstart/oci-hpc at b5285a6).
FITTED_LATENCY_S = 5e-6

Columns: TypeAlias = dict[str, Array]  # some of the fields of a Workload, by name


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A run before it runs."""

    # the model; FLOPs are forward and per token, causal attention halved
    n_layers: Array
    d_model: Array
    kv_width: Array  # keys and values together
    score_heads: Array
    ff_columns: Array  # of the dense feed-forward, gate included
    expert_columns: Array  # of the experts that a token passes through, gate included
    projection_flops: Array
    attention_flops: Array
    dense_flops: Array
    expert_flops: Array
    head_flops: Array
    layer_parameters: Array  # without experts
    expert_parameters: Array  # of all experts of a layer
    end_parameters: Array  # embedding and head
    vocab_size: Array
    seq_len: Array
    experts_top_k: Array
    # the plan
    dp: Array
    tp: Array
    pp: Array
    n_virtual: Array
    cp: Array
    ep: Array
    micro_batch: Array
    n_micro: Array
    full_recompute: Array  # share of the layer that is computed again
    selective_recompute: Array  # 1 where attention is
    shards_weights: Array  # 1 for FSDP and ZeRO-3
    shards_optimizer: Array  # 1 for ZeRO-1 and ZeRO-2
    one_reduce_scatter: Array  # 1 where gradients leave in one fused call, not bucket by bucket
    shard_ranks: Array  # ranks that share the shards; infinity: all of a gradient's ranks
    # the site
    node_devices: Array
    domain_devices: Array  # that reach one another over the scale-up link
    scale_up_bytes_per_s: Array
    node_out_bytes_per_s: Array  # of all network ports of a node
    out_latency_s: Array  # of a network message, beyond that of the clusters that the coefficients are fitted on
    oversubscription: Array
    reduces_in_network: Array
    matmul_flops_per_s: Array  # best that anyone measured, bf16 or fp16
    linear_flops_per_s: Array  # the same in the precision of the linear layers
    memory_bytes_per_s: Array
    memory_bytes: Array
    is_narrow: Array  # 1 where linear layers run in fp8 or fp4
    is_fp4: Array
    is_volta: Array
    is_ampere: Array
    is_blackwell: Array
    is_cdna: Array
    ring_step_s: Array  # measured seconds that each node adds to a large all-gather; nan where not probed
    # the stack
    is_torch: Array
    is_deepspeed: Array
    is_jax: Array
    is_compiled: Array
    years: Array  # since REFERENCE_YEAR
    stores_scores: Array  # 1 without fused attention
    sequence_parallel: Array
    balanced_stages: Array
    zero_bubble: Array
    blocking_sends: Array  # 1 where every pipeline send stops both stages
    overlaps_tensor: Array
    hides_gradients: Array
    hides_zero1: Array
    gradient_bytes: Array

    @property
    def tokens(self) -> Array:
        """Tokens of a micro-batch on one device."""
        return np.asarray(self.micro_batch * self.seq_len / self.cp)

    @property
    def n_devices(self) -> Array:
        """Devices that the plan keeps busy."""
        return np.asarray(self.dp * self.tp * self.pp * self.cp)

    @property
    def n_nodes(self) -> Array:
        """Nodes that they fill, at least one."""
        return np.asarray(np.maximum(1.0, self.n_devices / self.node_devices))

    @property
    def replicas(self) -> Array:
        """Ranks that share one gradient: data- and context-parallel ones."""
        return np.asarray(self.dp * self.cp)

    @property
    def step_tokens(self) -> Array:
        """Tokens of an optimizer step over the whole world."""
        return np.asarray(self.micro_batch * self.n_micro * self.dp * self.seq_len)

    def take(self, chosen: npt.NDArray[np.intp]) -> "Workload":
        """The chosen rows; fields without a dimension stay as they are."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Workload(**{name: value[chosen] if value.ndim else value for name, value in values.items()})

    def broadcast(self, n_rows: int) -> "Workload":
        """The same rows with every field of full length."""
        return Workload(**{f.name: np.broadcast_to(getattr(self, f.name), (n_rows,)) for f in fields(self)})


def concatenate(works: list[Workload]) -> Workload:
    """Rows of all; each of `works` holds one."""
    names = [f.name for f in fields(Workload)]
    return Workload(**{name: np.array([float(getattr(work, name)) for work in works]) for name in names})


def model_columns(shape: ModelShape) -> Columns:
    """What a model decides."""
    experts, gates = shape.n_experts * expert_parameters(shape), 1 + shape.gated
    return {
        "n_layers": _array(shape.n_layers),
        "d_model": _array(shape.d_model),
        "kv_width": _array(2 * shape.n_kv_heads * shape.head_dim),
        "score_heads": _array(shape.n_heads),
        "ff_columns": _array(gates * shape.d_ff),
        "expert_columns": _array(gates * shape.experts_top_k * shape.d_ff_expert),
        "projection_flops": _array(attention_projection_flops_per_token(shape)),
        "attention_flops": _array(attention_flops_per_token(shape, Convention.CAUSAL)),
        "dense_flops": _array(dense_flops_per_token(shape)),
        "expert_flops": _array(expert_flops_per_token(shape)),
        "head_flops": _array(head_flops_per_token(shape)),
        "layer_parameters": _array(layer_parameters(shape) - experts),
        "expert_parameters": _array(experts),
        "end_parameters": _array(embedding_parameters(shape) + head_parameters(shape)),
        "vocab_size": _array(shape.vocab_size),
        "seq_len": _array(shape.seq_len),
        "experts_top_k": _array(shape.experts_top_k),
    }


def plan_columns(layout: Layout, stack: Stack) -> Columns:
    """What a layout decides; Megatron-like stacks reduce a sharded optimizer's gradients in one call."""
    shards_optimizer = layout.is_sharding(Sharding.ZERO1) | layout.is_sharding(Sharding.ZERO2)
    return {
        "dp": layout.dp,
        "tp": layout.tp,
        "pp": layout.pp,
        "n_virtual": layout.n_virtual,
        "cp": layout.cp,
        "ep": layout.ep,
        "micro_batch": layout.micro_batch,
        "n_micro": layout.n_micro,
        "full_recompute": layout.is_recompute(Recompute.FULL).astype(np.float64),
        "selective_recompute": layout.is_recompute(Recompute.SELECTIVE).astype(np.float64),
        "shards_weights": layout.is_sharding(Sharding.ZERO3).astype(np.float64),
        "shards_optimizer": shards_optimizer.astype(np.float64),
        "one_reduce_scatter": (shards_optimizer & (stack.family is StackFamily.MEGATRON)).astype(np.float64),
        "shard_ranks": layout.replicas / layout.replicate,
    }


def site_columns(cluster: Cluster, precision: Precision) -> Columns:
    """What a cluster decides, training in a precision. Raises UsageError where nobody measured the device in it."""
    device, node = cluster.device, cluster.devices_per_node
    return dict(
        node_devices=_array(node),
        domain_devices=_array(cluster.scale_up_domain),
        scale_up_bytes_per_s=_array(cluster.scale_up.bytes_per_s.value),
        node_out_bytes_per_s=_array(cluster.scale_out.bytes_per_s.value * node),
        out_latency_s=_array(max(0.0, cluster.scale_out.latency_s.value - FITTED_LATENCY_S)),
        oversubscription=_array(cluster.oversubscription.value),
        reduces_in_network=_array(cluster.reduces_in_network),
        ring_step_s=_array(np.nan),
        **device_columns(device, precision),
    )


def device_columns(device: Device, precision: Precision) -> Columns:
    """What a device decides."""
    half = matmul_flops_per_s(device, Precision.FP16 if Precision.BF16 not in device.matmul_flops_per_s else Precision.BF16)
    return {
        "matmul_flops_per_s": _array(half),
        "linear_flops_per_s": _array(matmul_flops_per_s(device, precision) if precision in NARROW else half),
        "memory_bytes_per_s": _array(device.memory_bytes_per_s.value),
        "memory_bytes": _array(device.memory_bytes.value),
        "is_narrow": _array(precision in NARROW),
        "is_fp4": _array(precision is Precision.FP4),
        "is_volta": _array(device.architecture is Architecture.VOLTA),
        "is_ampere": _array(device.architecture is Architecture.AMPERE),
        "is_blackwell": _array(device.architecture is Architecture.BLACKWELL),
        "is_cdna": _array(device.architecture is Architecture.CDNA),
    }


def matmul_flops_per_s(device: Device, precision: Precision) -> float:
    """Best rate that anyone measured for a product. Raises UsageError where there is none."""
    rate = device.matmul_flops_per_s.get(precision)
    if rate is None:
        raise UsageError(
            f"device {device.name} has no matmul_flops_per_s.{precision}, which the run trains in; give it or take another device"
        )
    return rate.value


def stack_columns(stack: Stack) -> Columns:
    """What a stack decides."""
    return {
        "is_torch": _array(stack.family is StackFamily.TORCH),
        "is_deepspeed": _array(stack.family is StackFamily.DEEPSPEED),
        "is_jax": _array(stack.family is StackFamily.JAX),
        "is_compiled": _array(stack.compiled),
        "years": _array(stack.year - REFERENCE_YEAR),
        "stores_scores": _array(not stack.fused_attention),
        "sequence_parallel": _array(stack.sequence_parallel),
        "balanced_stages": _array(stack.balanced_stages),
        "zero_bubble": _array(stack.zero_bubble),
        "blocking_sends": _array(0.0),
        "overlaps_tensor": _array(stack.overlaps_tensor),
        "hides_gradients": _array(stack.hides_gradients),
        "hides_zero1": _array(stack.hides_zero1),
        "gradient_bytes": _array(stack.gradient_bytes),
    }


def workload_of(shape: ModelShape, layout: Layout, cluster: Cluster, stack: Stack, precision: Precision = Precision.BF16) -> Workload:
    """A model under one plan or many on a cluster."""
    return Workload(**model_columns(shape), **plan_columns(layout, stack), **site_columns(cluster, precision), **stack_columns(stack))


def _array(value: float) -> Array:
    return np.asarray(value, dtype=np.float64)
