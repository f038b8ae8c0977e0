"""The kernels for CPUs against torch's own formulas, and their gradients against differences."""

import pytest
import torch
from torch import Tensor, library
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.facts.model import ModelShape
from bench.run import kernels
from bench.run.kernels import causal_attention, cross_entropy_, rms_norm
from bench.run.transformer import Transformer, attend

TINY = ModelShape(name="tiny", n_layers=1, d_model=8, n_heads=2, n_kv_heads=1, head_dim=4, d_ff=16, vocab_size=7, seq_len=3)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def heads(seq_len: int, dtype: torch.dtype = torch.float64, head_dim: int = 8, batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """q of four heads, k and v of two, that want a gradient."""
    q, k, v = (torch.randn(batch, seq_len, n, head_dim, dtype=dtype, requires_grad=True) for n in (4, 2, 2))
    return q, k, v


@pytest.fixture
def wide_and_narrow() -> tuple[Tensor, Tensor, Tensor]:
    """An input [2, 5, 48], a weight of 32 rows and a gradient, in fp32."""
    return torch.randn(2, 5, 48, requires_grad=True), torch.randn(32, 48, requires_grad=True), torch.randn(2, 5, 32)


def test_linear_is_torchs_formula(wide_and_narrow: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, grad = wide_and_narrow
    own, plain = kernels.linear(x, weight), torch.nn.functional.linear(x, weight)
    torch.testing.assert_close(own, plain)
    torch.testing.assert_close(torch.autograd.grad(own, (x, weight), grad), torch.autograd.grad(plain, (x, weight), grad))


def test_linear_is_the_same_compiled(wide_and_narrow: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, grad = wide_and_narrow
    own, plain = torch.compile(kernels.linear, backend="aot_eager")(x, weight), torch.nn.functional.linear(x, weight)
    torch.testing.assert_close(own, plain)
    torch.testing.assert_close(torch.autograd.grad(own, (x, weight), grad), torch.autograd.grad(plain, (x, weight), grad))


def test_product_is_a_well_formed_operation() -> None:
    library.opcheck(torch.ops.proxybench.product.default, (torch.randn(6, 8), torch.randn(8, 4).t()))


def test_only_fp32_on_a_cpu_needs_its_own_linear(wide_and_narrow: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, _ = wide_and_narrow
    assert kernels.is_own_linear(x, weight) == torch.backends.mkldnn.is_available()
    assert not kernels.is_own_linear(x.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not kernels.is_own_linear(x, weight)
    assert not kernels.is_own_linear(x.to("meta"), weight.to("meta"))


# 300 queries go in blocks of 128, 128 and 44
@pytest.mark.parametrize("seq_len", [1, 40, 300])
def test_attention_is_torchs_formula(seq_len: int) -> None:
    q, k, v = heads(seq_len)
    own = causal_attention(q, k, v)
    with sdpa_kernel(SDPBackend.MATH):
        plain = attend(q, k, v)
    torch.testing.assert_close(own, plain)
    grad = torch.randn_like(own)
    torch.testing.assert_close(torch.autograd.grad(own, (q, k, v), grad), torch.autograd.grad(plain, (q, k, v), grad))


def test_attention_has_the_gradient_of_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "QUERIES_PER_BLOCK", 3)
    assert torch.autograd.gradcheck(causal_attention, heads(5, head_dim=2, batch=2))


def test_attention_is_a_well_formed_operation() -> None:
    library.opcheck(torch.ops.proxybench.causal_attention.default, heads(40))


def test_attention_in_bf16_is_as_close_to_fp64_as_torchs() -> None:
    exact = heads(256, head_dim=64)
    rounded = tuple(x.detach().bfloat16() for x in exact)
    truth = causal_attention(*exact).detach()
    own = (causal_attention(*rounded).double() - truth).norm()
    with torch.no_grad():
        q, k, v = (x.transpose(1, 2) for x in rounded)
        torchs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)
    # scores are rounded to bf16 before the softmax, where torch's kernel keeps them in fp32
    assert own < 1.5 * (torchs.double() - truth).norm()


def test_attention_ignores_the_future() -> None:
    q, k, v = heads(200)
    later = k.detach().clone()
    later[:, 150:] = 1e6
    torch.testing.assert_close(causal_attention(q, k, v)[:, :150], causal_attention(q, later, v)[:, :150])


@pytest.mark.parametrize("logits_per_block", [7, 21, 2**18])
def test_cross_entropy_is_torchs_formula(logits_per_block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LOGITS_PER_BLOCK", logits_per_block)
    x, targets = 5 * torch.randn(10, 7, dtype=torch.float64), torch.randint(7, (10,))
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    own, plain = cross_entropy_(leaf * 1, targets), torch.nn.functional.cross_entropy(other, targets)
    torch.testing.assert_close(own, plain)
    (3 * own).backward()
    (3 * plain).backward()
    torch.testing.assert_close(leaf.grad, other.grad)


def test_cross_entropy_has_the_gradient_of_differences() -> None:
    targets = torch.randint(7, (5,))
    assert torch.autograd.gradcheck(lambda x: cross_entropy_(x * 1, targets), torch.randn(5, 7, dtype=torch.float64, requires_grad=True))


def test_cross_entropy_of_a_hopeless_guess_is_finite() -> None:
    # softmax would round to 0 in fp32; the loss is 1000 all the same
    loss = cross_entropy_((torch.tensor([[1000.0, 0.0]]).requires_grad_() * 1), torch.tensor([1]))
    assert loss.item() == 1000


def test_cross_entropy_of_bf16_logits_is_fp32() -> None:
    logits, targets = torch.randn(64, 512).bfloat16(), torch.randint(512, (64,))
    expected = torch.nn.functional.cross_entropy(logits.float(), targets)
    torch.testing.assert_close(cross_entropy_(logits.requires_grad_() * 1, targets), expected)


def test_loss_without_gradient_leaves_the_logits() -> None:
    logits = torch.randn(2, 3, 7)
    before = logits.clone()
    Transformer(TINY).loss(logits, torch.randint(7, (2, 3)))
    assert torch.equal(logits, before)


def test_rms_norm_is_torchs_formula() -> None:
    x, weight = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True), torch.randn(8, dtype=torch.float64, requires_grad=True)
    own, plain = rms_norm(x, weight, 1e-5, x.dtype), torch.nn.functional.rms_norm(x, (8,), weight, 1e-5)
    torch.testing.assert_close(own, plain)
    grad = torch.randn_like(own)
    torch.testing.assert_close(torch.autograd.grad(own, (x, weight), grad), torch.autograd.grad(plain, (x, weight), grad))


def test_rms_norm_has_the_gradient_of_differences() -> None:
    x, weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-5, torch.float64), (x, weight))


def test_rms_norm_leaves_the_gradient_that_it_is_given() -> None:
    x, weight, grad = torch.randn(3, 4, requires_grad=True), torch.ones(4, requires_grad=True), torch.randn(3, 4)
    before = grad.clone()
    rms_norm(x, weight, 1e-5, torch.float32).backward(grad)
    assert torch.equal(grad, before)


def test_rms_norm_gives_the_dtype_asked_for_and_takes_its_gradient() -> None:
    x, weight = torch.randn(6, 8, requires_grad=True), torch.ones(8, requires_grad=True)
    out = rms_norm(x, weight, 1e-5, torch.bfloat16)
    out.sum().backward()
    assert out.dtype is torch.bfloat16
    assert x.grad is not None
    assert x.grad.dtype is torch.float32
