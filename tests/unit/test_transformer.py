"""The transformer against what its shape says, and against plainer ways to compute the same."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from bench.cost.parameters import n_parameters
from bench.facts.model import Activation, ModelShape, NormKind, Position
from bench.run.transformer import DenseAndExperts, Experts, Transformer, feed_forward, rotary_table, rotate
from tests.strategies import SHAPE_NAMES, configured_shape

LLAMA = ModelShape(
    name="llama", n_layers=2, d_model=64, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=160, vocab_size=512, seq_len=48,
)  # fmt: skip
GPT = replace(
    LLAMA, name="gpt", n_kv_heads=4, gated=False, activation=Activation.GELU, norm=NormKind.LAYER, position=Position.LEARNED,
    bias=True, tied_embedding=True,
)  # fmt: skip
GROK1 = replace(
    LLAMA, name="grok-1", n_kv_heads=1, d_ff=0, n_experts=8, experts_top_k=2, d_ff_expert=96, activation=Activation.GELU,
    sandwich_norm=True, tied_embedding=True, attention_softcap=30.0, embedding_multiplier=8.0, output_multiplier=3**-0.5,
)  # fmt: skip
GROK2 = replace(GROK1, name="grok-2", d_ff=160, tied_embedding=False, router_softcap=30.0, final_softcap=50.0)
KINDS = pytest.mark.parametrize("shape", [LLAMA, GPT, GROK1, GROK2], ids=lambda shape: shape.name)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def some_tokens(shape: ModelShape, batch: int = 2) -> Tensor:
    return torch.randint(shape.vocab_size, (batch, shape.seq_len))


@pytest.mark.parametrize("name", SHAPE_NAMES)
def test_configured_shape_has_the_parameters_of_the_formula(name: str) -> None:
    shape = configured_shape(name)
    with torch.device("meta"):
        model = Transformer(shape)
    assert sum(p.numel() for p in model.parameters()) == n_parameters(shape)


@KINDS
def test_untrained_model_guesses_evenly(shape: ModelShape) -> None:
    tokens, targets = some_tokens(shape, 4), some_tokens(shape, 4)
    loss = Transformer(shape)(tokens, targets)
    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(math.log(shape.vocab_size), rel=0.05)


@KINDS
def test_loss_is_the_cross_entropy_of_the_logits(shape: ModelShape) -> None:
    model, tokens, targets = Transformer(shape), some_tokens(shape), some_tokens(shape)
    expected = torch.nn.functional.cross_entropy(model(tokens).transpose(1, 2), targets)
    torch.testing.assert_close(model(tokens, targets), expected)


@pytest.mark.parametrize("cap", [None, 30.0])
@pytest.mark.parametrize("shape", [LLAMA, GPT], ids=lambda shape: shape.name)
def test_later_tokens_do_not_change_earlier_logits(shape: ModelShape, cap: float | None) -> None:
    model, tokens = Transformer(replace(shape, attention_softcap=cap)), some_tokens(shape)
    changed = tokens.clone()
    changed[:, 30] = (changed[:, 30] + 1) % shape.vocab_size
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :30], after[:, :30], rtol=0, atol=1e-6)
    assert not torch.allclose(before[:, 30:], after[:, 30:], atol=1e-4)


@pytest.mark.parametrize("shape", [LLAMA, GPT], ids=lambda shape: shape.name)
def test_order_of_earlier_tokens_matters(shape: ModelShape) -> None:
    # One layer of attention without positions would see a set.
    model, tokens = Transformer(replace(shape, n_layers=1)), some_tokens(shape)
    swapped = tokens[:, [1, 0, *range(2, shape.seq_len)]]
    assert not torch.allclose(model(tokens)[:, -1], model(swapped)[:, -1], atol=1e-5)


@KINDS
def test_gradient_reaches_every_parameter(shape: ModelShape) -> None:
    model = Transformer(shape)
    model(some_tokens(shape), some_tokens(shape)).backward()
    unreached = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A softmax does not see a shift of its logits, which is all that a bias of the keys does.
    assert [name for name in unreached if not name.endswith("k.bias")] == []


@KINDS
def test_seed_decides_the_weights(shape: ModelShape) -> None:
    torch.manual_seed(1)
    one = Transformer(shape)
    torch.manual_seed(1)
    other = Transformer(shape)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@KINDS
def test_model_from_the_meta_device_is_filled_like_any_other(shape: ModelShape) -> None:
    with torch.device("meta"):
        from_meta = Transformer(shape)
    from_meta.to_empty(device="cpu")
    direct, tokens = Transformer(shape), some_tokens(shape)
    for model in (from_meta, direct):  # the default weights of a Linear, drawn first, cost random numbers too
        torch.manual_seed(1)
        model.initialise()
    assert (from_meta.head.weight is from_meta.embedding.weight) == shape.tied_embedding
    assert dict(from_meta.named_buffers()).keys() == dict(direct.named_buffers()).keys()
    for one, other in zip(from_meta.buffers(), direct.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(from_meta(tokens), direct(tokens))


def test_residual_outputs_start_narrower() -> None:
    model = Transformer(replace(LLAMA, n_layers=8))
    assert model.get_parameter("layers.3.attention.q.weight").std().item() == pytest.approx(0.02, rel=0.05)
    assert model.get_parameter("layers.3.attention.o.weight").std().item() == pytest.approx(0.02 / 4, rel=0.05)  # sqrt(2 * 8) = 4
    assert model.get_parameter("layers.3.feed_forward.down.weight").std().item() == pytest.approx(0.02 / 4, rel=0.05)


@KINDS
def test_bf16_autocast_is_close_to_fp32(shape: ModelShape) -> None:
    model, tokens, targets = Transformer(shape), some_tokens(shape), some_tokens(shape)
    exact = model(tokens, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(tokens, targets)
    loss.backward()
    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.01)


@KINDS
def test_loss_of_a_bf16_model_is_fp32(shape: ModelShape) -> None:
    model, tokens = Transformer(shape).bfloat16(), some_tokens(shape)
    loss = model(tokens, some_tokens(shape))
    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(math.log(shape.vocab_size), rel=0.05)


@KINDS
def test_one_batch_can_be_learned(shape: ModelShape) -> None:
    model, tokens, targets = Transformer(shape), some_tokens(shape), some_tokens(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = model(tokens, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("shape", [LLAMA, GROK2], ids=lambda shape: shape.name)
def test_compiles_as_one_graph(shape: ModelShape) -> None:
    torch.compiler.reset()
    model, tokens = Transformer(replace(shape, n_layers=1)), some_tokens(shape)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens, tokens), model(tokens, tokens))


def test_rotation_depends_on_distance_alone() -> None:
    q, k = torch.randn(16), torch.randn(16)
    rotary = rotary_table(LLAMA)
    turned_q, turned_k = (rotate(x.expand(1, LLAMA.seq_len, 1, 16), rotary)[0, :, 0] for x in (q, k))
    products = turned_q @ turned_k.T
    torch.testing.assert_close(products.diagonal(-5), products[5, 0].expand(LLAMA.seq_len - 5), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(products[0, 0], q @ k)


def test_rotation_by_hand() -> None:
    # At position 1 the first pair turns by 1 radian: (1, 0) becomes (cos 1, sin 1), in columns 0 and 8 of 16.
    x = torch.zeros(1, LLAMA.seq_len, 1, 16)
    x[..., 0] = 1
    turned = rotate(x, rotary_table(LLAMA))[0, 1, 0]
    assert turned[0].item() == pytest.approx(math.cos(1))
    assert turned[8].item() == pytest.approx(math.sin(1))


def routed_feed_forward(shape: ModelShape) -> Experts:
    """Experts with weights wide enough to tell them apart."""
    experts = Experts(shape)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return experts


def token_by_token(experts: Experts, x: Tensor) -> Tensor:
    """Every token through its own experts, none dropped."""
    out = torch.zeros_like(x)
    for t, token in enumerate(x):
        top, chosen = (token @ experts.router.weight.T).topk(experts.top_k)
        for gate, e in zip(top.softmax(0), chosen, strict=True):
            assert experts.matrices.gate is not None
            out[t] += gate * ((gelu(token @ experts.matrices.gate[e]) * (token @ experts.matrices.up[e])) @ experts.matrices.down[e])
    return out


def test_experts_with_ample_room_are_a_loop_over_tokens() -> None:
    experts = routed_feed_forward(replace(GROK1, expert_capacity_factor=4.0))  # 8 experts, 2 chosen: every slot count is T
    x = torch.randn(2, 12, GROK1.d_model)
    torch.testing.assert_close(experts(x).flatten(0, 1), token_by_token(experts, x.flatten(0, 1)), rtol=1e-4, atol=1e-3)


def test_full_expert_keeps_its_highest_gates() -> None:
    experts = routed_feed_forward(GROK1)
    tokens = torch.randn(64, GROK1.d_model)
    gates, chosen = experts.assign(tokens)
    assert gates.shape == (8, 64 * 2 // 8)
    top, choice = experts.router(tokens).topk(2)
    wanted = torch.zeros(64, 8).scatter(1, choice, top.softmax(1))
    for e in range(8):
        torch.testing.assert_close(gates[e], wanted[:, e].sort(descending=True).values[:16])
        torch.testing.assert_close(wanted[chosen[e], e], gates[e])


def test_empty_slots_contribute_nothing() -> None:
    experts = routed_feed_forward(GROK1)
    with torch.no_grad():
        experts.router.weight.zero_()
        experts.router.weight[:2, 0] = 1  # tokens with a positive first column choose experts 0 and 1 alone
        experts.matrices.down[2:] = 1e6
    x = torch.randn(1, 16, GROK1.d_model).abs()
    assert experts(x).abs().max() < 1e5


def test_router_softcap_narrows_the_gates() -> None:
    # Logits within a hundredth of zero: each of two chosen experts gets about half.
    experts = routed_feed_forward(replace(GROK1, router_softcap=0.01, expert_capacity_factor=4.0))
    gates, _ = experts.assign(torch.randn(64, GROK1.d_model))
    torch.testing.assert_close(gates[gates > 0], torch.full((128,), 0.5), rtol=0, atol=0.01)


def test_no_expert_has_more_slots_than_tokens() -> None:
    gates, _ = Experts(replace(GROK1, expert_capacity_factor=100.0)).assign(torch.randn(6, GROK1.d_model))
    assert gates.shape == (8, 6)


def test_grok2_adds_dense_and_experts() -> None:
    both = feed_forward(GROK2)
    assert isinstance(both, DenseAndExperts)
    for parameter in both.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.randn(2, 8, GROK2.d_model)
    torch.testing.assert_close(both(x), (both.dense(x) + both.experts(x)) / math.sqrt(2))


def test_final_softcap_bounds_the_logits() -> None:
    model = Transformer(replace(LLAMA, final_softcap=0.01))
    assert model(some_tokens(LLAMA)).abs().max() <= 0.01


def test_multipliers_scale_embedding_and_logits() -> None:
    torch.manual_seed(0)
    plain = Transformer(replace(LLAMA, n_layers=1))
    torch.manual_seed(0)
    scaled = Transformer(replace(LLAMA, n_layers=1, output_multiplier=0.5, embedding_multiplier=3.0))
    tokens = some_tokens(LLAMA)
    torch.testing.assert_close(scaled.embed(tokens), 3 * plain.embed(tokens))
    x = torch.randn(1, 4, LLAMA.d_model)
    torch.testing.assert_close(scaled.logits(x), plain.logits(x) / 2)
