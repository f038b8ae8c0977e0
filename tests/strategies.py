"""Facts for tests: drawn by hypothesis, or read from conf/."""

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bench.facts.model import Activation, ModelShape, NormKind, Position

CONF = Path(__file__).parents[1] / "conf"
LADDERS = ("auto", "auto_grok")
SHAPE_NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if path.stem not in ("base", *LADDERS))


def composed_model(name: str) -> dict[str, Any]:
    """The group `model` as Hydra composes it, without the package's own decoder."""
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        model: dict[str, Any] = OmegaConf.to_container(compose(overrides=[f"+model={name}"]).model)  # type: ignore[assignment]
    return model


def shape_of(fields: dict[str, Any]) -> ModelShape:
    """A shape from plain values, `head_dim: auto` filled in."""
    head_dim = fields["d_model"] // fields["n_heads"] if fields["head_dim"] == "auto" else fields["head_dim"]
    kinds = {"activation": Activation(fields["activation"]), "norm": NormKind(fields["norm"]), "position": Position(fields["position"])}
    return ModelShape(**fields | kinds | {"head_dim": head_dim})


def configured_shape(name: str) -> ModelShape:
    """The shape in conf/model/NAME.yaml."""
    return shape_of(composed_model(name))


@st.composite
def model_shapes(draw: st.DrawFn) -> ModelShape:
    """Small shapes of every kind: grouped queries, experts, both feed-forwards, biases, tied or not, soft-capped or not."""
    n_kv_heads = draw(st.integers(1, 4))
    n_experts = draw(st.sampled_from((0, 2, 4)))
    return ModelShape(
        name="drawn",
        n_layers=draw(st.integers(1, 3)),
        d_model=8 * draw(st.integers(1, 6)),
        n_heads=n_kv_heads * draw(st.integers(1, 3)),
        n_kv_heads=n_kv_heads,
        head_dim=2 * draw(st.integers(1, 8)),
        d_ff=draw(st.integers(0 if n_experts else 1, 64)),
        vocab_size=draw(st.integers(2, 200)),
        seq_len=draw(st.integers(1, 64)),
        gated=draw(st.booleans()),
        activation=draw(st.sampled_from(Activation)),
        norm=draw(st.sampled_from(NormKind)),
        sandwich_norm=draw(st.booleans()),
        position=draw(st.sampled_from(Position)),
        bias=draw(st.booleans()),
        tied_embedding=draw(st.booleans()),
        n_experts=n_experts,
        experts_top_k=draw(st.integers(1, n_experts)) if n_experts else 0,
        d_ff_expert=draw(st.integers(1, 64)) if n_experts else 0,
        attention_softcap=draw(st.sampled_from((None, 30.0))),
        router_softcap=draw(st.sampled_from((None, 30.0))),
        final_softcap=draw(st.sampled_from((None, 50.0))),
    )
