"""One device's share of a big plan in numbers: its matrix products, FLOPs, and the bytes that running it takes."""

from dataclasses import replace

from bench.cost.flops import (
    Convention,
    attention_flops_per_token,
    attention_projection_flops_per_token,
    dense_flops_per_token,
    expert_flops_per_token,
    head_flops_per_token,
    router_flops_per_token,
)
from bench.cost.layout import layout_of
from bench.cost.memory import LOGIT_BYTES, OPTIMIZER_BYTES, kept_bytes_per_token
from bench.cost.parameters import (
    attention_parameters,
    dense_parameters,
    embedding_parameters,
    expert_parameters,
    head_parameters,
    norm_parameters,
    router_parameters,
)
from bench.facts.hardware import Precision
from bench.facts.model import ModelShape
from bench.facts.plan import BatchPlan, ParallelPlan, Recompute
from bench.facts.shard import Product, local_shape, n_experts_held, n_slots

SCORE_COPIES = 4  # of attention logits, where no fused kernel takes them: capped, masked, weights, gradient


def shard_tokens(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int) -> int:
    """Tokens that pass through the products of one device in one micro-batch."""
    return micro_batch_size * shape.seq_len // plan.context_parallel_size


def shard_layer_flops(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int) -> float:
    """Forward FLOPs of one device in one layer and micro-batch; every device's together are the model's.

    Attention is causal over the whole sequence, evenly dealt to context-parallel ranks. The router runs on a
    tensor-parallel rank's share of the tokens. Experts are counted at their capacity.
    """
    local, tokens = local_shape(shape, plan), shard_tokens(shape, plan, micro_batch_size)
    dense = attention_projection_flops_per_token(local) + dense_flops_per_token(local)
    attention = attention_flops_per_token(local, Convention.CAUSAL, shape.seq_len)
    router = router_flops_per_token(shape) / plan.tensor_parallel_size
    return tokens * (dense + attention + router + shape.expert_capacity_factor * expert_flops_per_token(local))


def shard_ends_flops(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int) -> float:
    """Forward FLOPs of one device in the output head."""
    return shard_tokens(shape, plan, micro_batch_size) * head_flops_per_token(local_shape(shape, plan))


def shard_layer_parameters(shape: ModelShape, plan: ParallelPlan) -> int:
    """Parameters of one layer on one device: a share of the matrices, and a copy of the norms and of the router."""
    local = local_shape(shape, plan)
    matrices = attention_parameters(local) + dense_parameters(local) + n_experts_held(shape, plan) * expert_parameters(local)
    return matrices + norm_parameters(local) + router_parameters(local)


def shard_ends_parameters(shape: ModelShape, plan: ParallelPlan) -> int:
    """Parameters of embedding and head on one device."""
    local = local_shape(shape, plan)
    return embedding_parameters(local) + head_parameters(local)


def shard_products(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int) -> tuple[Product, ...]:
    """The forward matrix products of one device, attention itself left out."""
    local, tokens = local_shape(shape, plan), shard_tokens(shape, plan, micro_batch_size)
    D, q_width, kv_width = shape.d_model, local.n_heads * local.head_dim, local.n_kv_heads * local.head_dim
    products = [
        Product(name="query", m=tokens, k=D, n=q_width),
        Product(name="key, value", m=tokens, k=D, n=kv_width, n_alike=2),
        Product(name="attention output", m=tokens, k=q_width, n=D),
        Product(name="head", m=tokens, k=D, n=local.vocab_size),
    ]
    if shape.d_ff:
        products += [
            Product(name="up", m=tokens, k=D, n=local.d_ff, n_alike=1 + shape.gated),
            Product(name="down", m=tokens, k=local.d_ff, n=D),
        ]
    if shape.is_moe:
        products += _expert_products(shape, local, plan, micro_batch_size)
    return tuple(products)


def _expert_products(shape: ModelShape, local: ModelShape, plan: ParallelPlan, micro_batch_size: int) -> list[Product]:
    """The router over a rank's own tokens; experts over the slots that every rank of both groups has filled."""
    D, F, tp = shape.d_model, local.d_ff_expert, plan.tensor_parallel_size
    held, slots = n_experts_held(shape, plan), n_slots(shape, plan, micro_batch_size) * tp * plan.expert_parallel_size
    return [
        Product(name="router", m=shard_tokens(shape, plan, micro_batch_size) // tp, k=D, n=shape.n_experts),
        Product(name="expert up", m=slots, k=D, n=F, n_batch=held, n_alike=1 + shape.gated),
        Product(name="expert down", m=slots, k=F, n=D, n_batch=held),
    ]


def slice_bytes(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int, n_layers: int, precision: Precision) -> float:
    """Bytes that running the share of `n_layers` layers and both ends takes on one device, nothing sharded over data.

    Weights and gradients in the precision of the products, and Adam's state in fp32 with an fp32 gradient beside it;
    every activation kept, which is the most that any recompute variant takes; logits; scores where a soft-cap keeps
    attention from being fused.
    """
    width = 4 if precision is Precision.FP32 else 2
    local, tokens = local_shape(shape, plan), shard_tokens(shape, plan, micro_batch_size)
    n_parameters = n_layers * shard_layer_parameters(shape, plan) + shard_ends_parameters(shape, plan)
    state = n_parameters * (2 * width + 4 + OPTIMIZER_BYTES)
    # tokens of all tensor-parallel ranks pass through a device's products, but only through its share of their columns
    activations = tokens * (n_layers + 1) * _kept_bytes(shape, plan) * width / 2 / plan.tensor_parallel_size
    gathered = 4 * tokens * shape.d_model * width * (2 + shape.experts_top_k)
    scores = micro_batch_size * local.n_heads * local.seq_len * shape.seq_len * width if shape.attention_softcap is not None else 0
    return float(state + activations + gathered + SCORE_COPIES * scores + tokens * local.vocab_size * (LOGIT_BYTES + 2 * width))


def _kept_bytes(shape: ModelShape, plan: ParallelPlan) -> float:
    """Bytes of one token's activations in one layer, in bf16, nothing computed again."""
    dp = plan.data_parallel_size
    batch = BatchPlan(micro_batch_size=1, global_batch_size=dp, data_parallel_size=dp)
    return float(kept_bytes_per_token(shape, layout_of(replace(plan, recompute=Recompute.NONE), batch)))
