"""fp8 training: refused in one line where it cannot be, and close to fp32 where torchao can emulate it."""

import pytest
import torch

from bench.errors import UsageError
from bench.facts.hardware import Backend
from bench.facts.model import ModelShape
from bench.run import float8
from bench.run.devices import LocalDevice
from bench.run.float8 import refuse_float8, use_float8
from bench.run.transformer import Transformer

SHAPE = ModelShape(name="small", n_layers=1, d_model=32, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=48, vocab_size=64, seq_len=16)
CPU, CUDA = LocalDevice(Backend.CPU, 0), LocalDevice(Backend.CUDA, 0)


def told_capability(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA Round 1")


def test_a_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match=r"fp8 given; .* has no fp8 matrix units that torch uses; use bf16"):
        refuse_float8(CPU, is_replicated=True)


def test_an_old_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    told_capability(monkeypatch, (8, 0))
    with pytest.raises(UsageError, match="NVIDIA Round 1 has no fp8 matrix units"):
        refuse_float8(CUDA, is_replicated=True)


def test_a_plan_that_splits_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    told_capability(monkeypatch, (9, 0))
    with pytest.raises(UsageError, match="runs with plan=ddp or zero1 only"):
        refuse_float8(CUDA, is_replicated=False)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    told_capability(monkeypatch, (9, 0))
    monkeypatch.setattr(float8, "TORCHAO", "a_package_that_nobody_has")
    with pytest.raises(UsageError, match=r"pip install proxybench\[fp8\]"):
        refuse_float8(CUDA, is_replicated=True)


def test_float8_is_close_to_fp32_and_reaches_every_layer_but_the_head() -> None:
    pytest.importorskip("torchao.float8")
    torch.manual_seed(0)
    model, tokens = Transformer(SHAPE), torch.randint(64, (2, 16))
    plain = model(tokens, tokens)
    plain.backward()
    weight = model.layers[0].feed_forward.up.weight
    expected = weight.grad.clone()
    weight.grad = None
    use_float8(model, emulate=True)
    # q, k, v, o, up, gate, down
    assert sum(type(m).__name__ == "Float8Linear" for m in model.modules()) == 7
    loss = model(tokens, tokens)
    loss.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-3)
    assert weight.grad is not None
    # eight bits, three of them of a fraction: each product is off by some per cent
    assert 0 < (weight.grad - expected).norm() < 0.1 * expected.norm()
