"""Laws of parameters and FLOPs that hold for every shape."""

from dataclasses import replace

import torch
from hypothesis import given, settings

from bench.cost.flops import Convention, attention_flops_per_token, flops_per_token
from bench.cost.parameters import embedding_parameters, head_parameters, layer_parameters, n_active_parameters, n_parameters
from bench.facts.model import ModelShape
from bench.run.transformer import Transformer
from tests.strategies import model_shapes


@given(model_shapes())
@settings(deadline=None)
def test_model_has_as_many_parameters_as_the_formula_says(shape: ModelShape) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in Transformer(shape).parameters()) == n_parameters(shape)


@given(model_shapes())
def test_active_parameters_are_all_where_every_expert_is_used(shape: ModelShape) -> None:
    assert (n_active_parameters(shape) == n_parameters(shape)) == (shape.experts_top_k == shape.n_experts)
    assert n_active_parameters(shape) <= n_parameters(shape)


@given(model_shapes())
def test_one_more_layer_adds_the_parameters_of_a_layer(shape: ModelShape) -> None:
    assert n_parameters(replace(shape, n_layers=shape.n_layers + 1)) - n_parameters(shape) == layer_parameters(shape)


@given(model_shapes())
def test_tying_the_embedding_saves_one_table(shape: ModelShape) -> None:
    tied, untied = replace(shape, tied_embedding=True), replace(shape, tied_embedding=False)
    assert n_parameters(untied) - n_parameters(tied) == head_parameters(untied) == shape.vocab_size * shape.d_model


@given(model_shapes())
def test_conventions_differ_by_half_the_attention(shape: ModelShape) -> None:
    full, causal = flops_per_token(shape, Convention.FULL), flops_per_token(shape, Convention.CAUSAL)
    assert full - causal == 3 * shape.n_layers * attention_flops_per_token(shape, Convention.FULL) / 2


@given(model_shapes())
def test_longer_sequences_cost_more_per_token(shape: ModelShape) -> None:
    assert flops_per_token(shape, Convention.CAUSAL, shape.seq_len + 1) > flops_per_token(shape, Convention.CAUSAL, shape.seq_len)


@given(model_shapes())
def test_without_attention_flops_are_six_per_active_weight(shape: ModelShape) -> None:
    # Kaplan et al. 2020. Weights in matrix products: no norms, no biases, the head but not the tables.
    bare = replace(shape, bias=False)
    norms = n_parameters(bare) - n_parameters_without_norms(bare)
    weights = n_active_parameters(bare) - embedding_parameters(bare) - head_parameters(bare) - norms + bare.vocab_size * bare.d_model
    assert flops_per_token(bare, Convention.FULL, seq_len=0) == 6 * weights


def n_parameters_without_norms(shape: ModelShape) -> int:
    """Everything with more than one dimension."""
    with torch.device("meta"):
        return sum(p.numel() for p in Transformer(shape).parameters() if p.ndim > 1)
