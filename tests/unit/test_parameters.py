"""Counts of parameters against published totals."""

import pytest

from bench.cost.parameters import attention_parameters, dense_parameters, head_parameters, n_active_parameters, n_parameters
from bench.facts.model import ModelShape
from tests.strategies import LADDERS, SHAPE_NAMES, composed_model, configured_shape, shape_of

RUNGS = {
    "auto": ["tiny", "dense_5m", "dense_20m", "dense_60m", "dense_125m", "dense_350m", "dense_1b", "dense_3b", "llama3_8b"],
    "auto_grok": ["grok_tiny", "grok1_d8_l8", "grok1_d2_l2", "grok1_d4_l16", "grok1_l1", "grok1_d2_l8"],
}


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("dense_1b", 1_235_814_400),  # weights of meta-llama/Llama-3.2-1B
        ("dense_3b", 3_212_749_824),  # Llama-3.2-3B
        ("llama3_8b", 8_030_261_248),  # Meta-Llama-3-8B
        ("llama3_70b", 70_553_706_496),
        ("llama3_405b", 405_853_388_800),
        ("gpt3_175b", 174_604_259_328),  # published as 175B
        ("grok1_314b", 315_684_820_992),  # the release rounds to 314B
        ("grok2_270b", 269_515_497_472),  # weights of xai-org/grok-2
    ],
)
def test_total_is_the_published_one(name: str, total: int) -> None:
    assert n_parameters(configured_shape(name)) == total


def test_gpt3_matches_the_sum_by_hand() -> None:
    # d = 12288; a layer: 4 d d + 4 d attention, 2 d 4 d + 5 d feed-forward, two norms of 2 d; 50257 + 2048 rows of d; a norm of 2 d
    d = 12288
    by_hand = 96 * (12 * d * d + 13 * d) + (50257 + 2048) * d + 2 * d
    assert n_parameters(configured_shape("gpt3_175b")) == by_hand


def test_active_parameters_of_grok() -> None:
    # Grok-1: 315684820992 - 64 * 6 * 3 * 6144 * 32768; Grok-2: 269515497472 - 64 * 6 * 3 * 8192 * 16384
    assert n_active_parameters(configured_shape("grok1_314b")) == 83_756_587_008
    assert n_active_parameters(configured_shape("grok2_270b")) == 114_896_674_816


def test_grok2_attention_of_one_layer() -> None:
    # 2 * 8192 * 8192 + 2 * 8192 * 1024
    assert attention_parameters(configured_shape("grok2_270b")) == 150_994_944


def test_layers_without_dense_feed_forward_have_no_dense_biases() -> None:
    shape = ModelShape(
        name="experts", n_layers=1, d_model=8, n_heads=1, n_kv_heads=1, head_dim=8, d_ff=0, vocab_size=16, seq_len=4,
        bias=True, n_experts=2, experts_top_k=1, d_ff_expert=4,
    )  # fmt: skip
    assert dense_parameters(shape) == 0


def test_tied_head_is_counted_once() -> None:
    assert head_parameters(configured_shape("grok1_314b")) == 0


@pytest.mark.parametrize("name", SHAPE_NAMES)
def test_shape_has_every_field_and_a_source(name: str) -> None:
    fields = composed_model(name)
    assert set(fields) == set(ModelShape.__dataclass_fields__)
    assert fields["name"] == name
    assert fields["source"].strip()


@pytest.mark.parametrize("name", [name for name in SHAPE_NAMES if name.startswith("grok")])
def test_grok_ladder_keeps_what_makes_it_grok(name: str) -> None:
    shape = configured_shape(name)
    assert (shape.n_experts, shape.experts_top_k, shape.sandwich_norm, shape.attention_softcap) == (8, 2, True, 30.0)
    assert shape.embedding_multiplier == pytest.approx(shape.d_model**0.5, rel=1e-6)
    if name != "grok2_270b":
        assert shape.n_heads == 6 * shape.n_kv_heads
        assert 3 * shape.d_ff_expert == 16 * shape.d_model


@pytest.mark.parametrize("ladder", LADDERS)
def test_ladder_holds_whole_shapes_in_order_of_size(ladder: str) -> None:
    model = composed_model(ladder)
    assert model["name"] == ladder
    assert list(model["rungs"]) == RUNGS[ladder]
    shapes = [shape_of(fields) for fields in model["rungs"].values()]
    assert shapes == [configured_shape(name) for name in RUNGS[ladder]]
    sizes = [n_parameters(shape) for shape in shapes]
    assert sizes == sorted(sizes)
