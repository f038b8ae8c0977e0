"""The FLOP formula against torch's own count, and against published figures."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.cost.flops import Convention, attention_flops_per_token, flops_per_token, forward_flops_per_token, head_flops_per_token
from bench.facts.model import Activation, ModelShape, NormKind, Position
from bench.run.transformer import Transformer
from tests.flops import flop_counter
from tests.strategies import configured_shape

DENSE = ModelShape(
    name="dense", n_layers=2, d_model=64, n_heads=4, n_kv_heads=4, head_dim=16, d_ff=160, vocab_size=256, seq_len=32,
)  # fmt: skip
EXPERTS = replace(DENSE, name="experts", d_ff=0, n_experts=8, experts_top_k=2, d_ff_expert=96)
SHAPES = [
    DENSE,
    replace(DENSE, name="grouped queries", n_kv_heads=2, head_dim=32),
    EXPERTS,
    replace(
        DENSE, name="gpt", gated=False, bias=True, activation=Activation.GELU, norm=NormKind.LAYER, position=Position.LEARNED,
        tied_embedding=True,
    ),
    replace(
        EXPERTS, name="grok-1", n_kv_heads=1, sandwich_norm=True, attention_softcap=30.0, activation=Activation.GELU, tied_embedding=True,
    ),
    replace(EXPERTS, name="grok-2", d_ff=160, router_softcap=30.0, attention_softcap=30.0, sandwich_norm=True),
]  # fmt: skip


def counted_flops(shape: ModelShape, batch: int) -> int:
    """FLOPs that torch dispatches, forward and backward; the math backend so that no kernel computes scores again."""
    model, tokens = Transformer(shape), torch.randint(shape.vocab_size, (batch, shape.seq_len))
    with sdpa_kernel(SDPBackend.MATH), flop_counter() as counter:
        model(tokens, tokens).backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_formula_is_what_torch_counts(shape: ModelShape) -> None:
    expected = flops_per_token(shape, Convention.FULL) * 2 * shape.seq_len
    assert counted_flops(shape, batch=2) == pytest.approx(expected, rel=0.005)


def test_dense_shape_by_hand() -> None:
    # A layer forward: projections 2 * 4 * 64 * 64 = 32768; scores and values 4 * 32 keys * 64 = 8192; feed-forward
    # 2 * 3 * 64 * 160 = 61440; together 102400. Head 2 * 64 * 256 = 32768. 3 * (2 * 102400 + 32768) = 712704.
    assert flops_per_token(DENSE, Convention.FULL) == 712_704
    # causal: 4096 fewer in each layer forward, so 3 * 2 * 4096 = 24576 fewer
    assert flops_per_token(DENSE, Convention.CAUSAL) == 688_128


def test_soft_capped_attention_skips_most_masked_scores() -> None:
    # 1024 queries in eight chunks of 128: (1 + 2 + ... + 8) / 64 = 36 / 64 of the scores
    capped = replace(DENSE, n_layers=1, seq_len=1024, attention_softcap=30.0)
    skipped = 3 * 28 / 64 * attention_flops_per_token(capped, Convention.FULL) * 1024
    assert counted_flops(capped, batch=1) == pytest.approx(flops_per_token(capped, Convention.FULL) * 1024 - skipped, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "gflops"),
    # NVIDIA's formula for Grok-1 in NeMo, attention halved: L (12 h^2 (1 + kv/q + s/(2h)) + 18 ffn h topk) + 6 V h
    [("grok1_314b", 521.8), ("grok1_l32", 263.3), ("grok1_l8", 69.5), ("grok1_l2", 21.0), ("grok1_d4_l16", 10.2), ("grok1_d8_l8", 1.9)],
)
def test_grok1_matches_nvidias_formula(name: str, gflops: float) -> None:
    assert flops_per_token(configured_shape(name), Convention.CAUSAL) / 1e9 == pytest.approx(gflops, abs=0.06)


def test_training_is_three_forwards() -> None:
    assert flops_per_token(DENSE, Convention.FULL) == 3 * forward_flops_per_token(DENSE, Convention.FULL)


def test_head_costs_the_same_tied_or_not() -> None:
    assert head_flops_per_token(replace(DENSE, tied_embedding=True)) == head_flops_per_token(DENSE)


def test_sequence_length_can_be_another_than_the_shapes() -> None:
    assert attention_flops_per_token(DENSE, Convention.FULL, seq_len=64) == 2 * attention_flops_per_token(DENSE, Convention.FULL)
