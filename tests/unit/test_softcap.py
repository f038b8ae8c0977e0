"""Attention with capped logits: by plain operations, and by the kernel that torch's compiler writes for a GPU."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.functional import softmax

from bench.run.softcap import BLOCK, attend_fused, attend_in_chunks, attend_softcapped, causal_blocks
from bench.run.transformer import attend

# the last of so many queries, of so many tokens; in blocks of 128
LENGTHS = pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 1), (40, 40), (300, 300), (128, 512), (130, 700), (44, 300)])
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="its gradient needs a GPU")


def heads(n_queries: int, n_keys: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return tuple(torch.randn(2, n, heads, 16) for n, heads in ((n_queries, 6), (n_keys, 2), (n_keys, 2)))  # type: ignore[return-value]


def plain_formula(q: Tensor, k: Tensor, v: Tensor, cap: float) -> Tensor:
    """As it is written in a paper."""
    n_queries, n_keys, n_shared = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k.repeat_interleave(n_shared, dim=2)) / math.sqrt(q.shape[-1])
    hidden = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q.device).triu(n_keys - n_queries + 1)
    weights = softmax((cap * torch.tanh(scores / cap)).masked_fill(hidden, -math.inf), dim=-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v.repeat_interleave(n_shared, dim=2))


@LENGTHS
def test_chunks_are_the_plain_formula(n_queries: int, n_keys: int) -> None:
    q, k, v = heads(n_queries, n_keys)
    torch.testing.assert_close(attend_in_chunks(q, k, v, cap=2.0), plain_formula(q, k, v, 2.0), rtol=1e-4, atol=1e-5)


@LENGTHS
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_fused_kernel_is_the_plain_formula(n_queries: int, n_keys: int) -> None:
    q, k, v = heads(n_queries, n_keys)
    torch.testing.assert_close(attend_fused(q, k, v, cap=2.0), plain_formula(q, k, v, 2.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seq_len", [1, 40, 300])
def test_a_huge_cap_changes_nothing(seq_len: int) -> None:
    q, k, v = heads(seq_len, seq_len)
    torch.testing.assert_close(attend_softcapped(q, k, v, cap=1e4), attend(q, k, v), rtol=1e-3, atol=1e-4)


@LENGTHS
def test_blocks_are_those_that_torch_finds_pair_by_pair(n_queries: int, n_keys: int) -> None:
    blocks = causal_blocks(n_queries, n_keys, torch.device("cpu"))
    found = create_block_mask(blocks.mask_mod, None, None, n_queries, n_keys, device="cpu", BLOCK_SIZE=BLOCK)
    assert torch.equal(blocks.to_dense(), found.to_dense())


def test_it_compiles_as_one_graph() -> None:
    q, k, v = heads(300, 300)
    compiled = torch.compile(attend_fused, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v, cap=2.0), plain_formula(q, k, v, 2.0), rtol=1e-4, atol=1e-5)


@needs_gpu
@LENGTHS
def test_values_and_gradients_on_a_gpu_are_those_of_the_plain_formula(n_queries: int, n_keys: int) -> None:
    found = [x.cuda().bfloat16().requires_grad_() for x in heads(n_queries, n_keys)]
    exact = [x.detach().float().requires_grad_() for x in found]
    out, expected = torch.compile(attend_softcapped, fullgraph=True, dynamic=False)(*found, cap=2.0), plain_formula(*exact, cap=2.0)
    out.float().square().sum().backward()
    expected.square().sum().backward()
    for mine, theirs in [(out, expected), *((a.grad, b.grad) for a, b in zip(found, exact, strict=True))]:
        assert (mine.float() - theirs).norm() < 0.02 * theirs.norm() + 1e-6  # the gradient of a lone key is zero
