"""Model FLOPs of one token: what the matrix products need, a multiply-add counted as two. Recomputation is not among them."""

from enum import StrEnum

from bench.cost.parameters import expert_parameters, router_parameters
from bench.facts.model import ModelShape
from bench.facts.plan import Recompute


class Convention(StrEnum):
    """How causal attention is counted: every score, or only the half that is not masked."""

    FULL = "full"  # Chowdhery et al. 2022 (PaLM), appendix B
    CAUSAL = "causal"  # Dao 2023 (FlashAttention-2), section 4.1; NVIDIA's published training speeds


def attention_flops_per_token(shape: ModelShape, convention: Convention, seq_len: int | None = None) -> float:
    """Forward FLOPs of scores and weighted values in one layer, of a mean token of a sequence.

    S keys, each 2 * d FLOPs for its score and 2 * d for its value, in H heads: 4 * S * H * d; `CAUSAL` takes half.
    Source: Chowdhery et al. 2022, appendix B: 12 * L * H * Q * T forward and backward.

    >>> gpt3 = ModelShape(name="gpt-3", n_layers=96, d_model=12288, n_heads=96, n_kv_heads=96, head_dim=128, d_ff=49152,
    ...     vocab_size=50257, seq_len=2048, gated=False)
    >>> attention_flops_per_token(gpt3, Convention.FULL), attention_flops_per_token(gpt3, Convention.CAUSAL)
    (100663296.0, 50331648.0)
    """
    full = 4.0 * (shape.seq_len if seq_len is None else seq_len) * shape.n_heads * shape.head_dim
    return full / 2 if convention == Convention.CAUSAL else full


def attention_projection_flops_per_token(shape: ModelShape) -> float:
    """Forward FLOPs of the four projections of one layer; twice their weights."""
    return 4.0 * shape.d_model * shape.head_dim * (shape.n_heads + shape.n_kv_heads)


def dense_flops_per_token(shape: ModelShape) -> float:
    """Forward FLOPs of the dense feed-forward of one layer: three matrices if gated, else two."""
    return 2.0 * (2 + shape.gated) * shape.d_model * shape.d_ff


def expert_flops_per_token(shape: ModelShape) -> float:
    """Forward FLOPs of the `experts_top_k` experts of one layer, at capacity factor 1."""
    return 2.0 * shape.experts_top_k * expert_parameters(shape)


def router_flops_per_token(shape: ModelShape) -> float:
    """Forward FLOPs of the router of one layer."""
    return 2.0 * router_parameters(shape)


def layer_flops_per_token(shape: ModelShape, convention: Convention, seq_len: int | None = None) -> float:
    """Forward FLOPs of one layer. Norms, activations, soft-caps and rotary embedding are not matrix products and not counted."""
    attention = attention_projection_flops_per_token(shape) + attention_flops_per_token(shape, convention, seq_len)
    return attention + dense_flops_per_token(shape) + router_flops_per_token(shape) + expert_flops_per_token(shape)


def head_flops_per_token(shape: ModelShape) -> float:
    """Forward FLOPs of the output projection, tied or not; looking a token up in the table is free."""
    return 2.0 * shape.vocab_size * shape.d_model


def forward_flops_per_token(shape: ModelShape, convention: Convention, seq_len: int | None = None) -> float:
    """Forward FLOPs of the model."""
    return shape.n_layers * layer_flops_per_token(shape, convention, seq_len) + head_flops_per_token(shape)


def flops_per_token(shape: ModelShape, convention: Convention, seq_len: int | None = None) -> float:
    """FLOPs of a training step per token: the backward pass computes two products for each one of the forward pass.

    Source: Kaplan et al. 2020, section 2.1 (6 FLOPs per parameter and token); attention added as in PaLM, appendix B.
    Grok-1 has 521.8e9, attention halved, in NVIDIA's formula for its NeMo runs, which leaves the router out.

    >>> grok1 = ModelShape(name="grok-1", n_layers=64, d_model=6144, n_heads=48, n_kv_heads=8, head_dim=128, d_ff=0,
    ...     vocab_size=131072, seq_len=8192, n_experts=8, experts_top_k=2, d_ff_expert=32768)
    >>> round(flops_per_token(grok1, Convention.CAUSAL) / 1e9, 1)
    521.9
    """
    return 3.0 * forward_flops_per_token(shape, convention, seq_len)


def recomputed_flops_per_token(shape: ModelShape, recompute: Recompute, convention: Convention) -> float:
    """FLOPs per token that a step spends on computing activations again: whole layers, or scores and weighted values alone.

    What a fused attention kernel computes again by itself is not counted.
    Source: Korthikanti et al. 2022, section 5 (selective recomputation), appendix A (hardware FLOPs).
    """
    match recompute:
        case Recompute.FULL:
            return shape.n_layers * layer_flops_per_token(shape, convention)
        case Recompute.SELECTIVE:
            return shape.n_layers * attention_flops_per_token(shape, convention)
    return 0.0
