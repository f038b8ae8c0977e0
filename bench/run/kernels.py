"""Linear layers, causal attention, cross-entropy and RMSNorm with their gradients, in a form that is faster on a CPU than torch's own.

Products stay in the dtype of their inputs; sums, norms and the loss are taken in fp32: the usual mixed precision.
The times in the comments are of one core of an AMD EPYC (Zen 5) with torch 2.13, forward and backward.

Shapes: B batch, S sequence, T = B * S tokens, D model width, H query heads, K key-value heads, G = H / K, d head width,
s queries of one block, e keys that they may see, V vocabulary, N and M the two other sides of a product.
"""

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, library
from torch.nn.functional import log_softmax

from bench.run.dealt import is_dealt

QUERIES_PER_BLOCK = 128
LOGITS_PER_BLOCK = 2**18  # 1 MiB in fp32: a core's cache
Grads = tuple[Tensor, Tensor, Tensor]


def is_cpu_eager(x: Tensor) -> bool:
    """Whether the operations on a tensor run one by one on a CPU, over plain memory."""
    return x.device.type == "cpu" and not is_dealt(x) and not torch.compiler.is_compiling()


def is_own_attention(q: Tensor) -> bool:
    """Whether `causal_attention` is to run: on a CPU, unless `sdpa_kernel` has switched torch's fused kernel off."""
    switched_on = torch.compiler.is_compiling() or torch._C._get_flash_sdp_enabled()
    return switched_on and q.device.type == "cpu" and not is_dealt(q)


def is_own_linear(x: Tensor, weight: Tensor) -> bool:
    """Whether `linear` is to run: in fp32 on a CPU, where torch has oneDNN."""
    is_fp32 = x.dtype is weight.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    is_plain = x.device.type == "cpu" and not is_dealt(x) and not is_dealt(weight)
    return is_fp32 and is_plain and torch._C._has_mkldnn


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [.., D] times the transpose of weight [N, D], in fp32."""
    # one opaque operation to torch.compile, which would copy transposed views first; eager mode spares its 20 us a call
    product = _opaque_product if torch.compiler.is_compiling() else _Product.apply
    out: Tensor = product(x.flatten(0, -2), weight)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], -1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """[T, N] of a [T, M] and b [N, M], by oneDNN; either may be a transposed view."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return out


class _Product(torch.autograd.Function):
    """240 GFLOP/s where torch's own linear, which goes to MKL in fp32, has 109 (T 2048, M 384, N 1024)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return _product(a, b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return _product(grad, b.t()), _product(grad.t(), a.t())


_opaque_product = library.custom_op("proxybench::product", _product, mutates_args=())


@_opaque_product.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[0])


def _save_factors(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs)


def _product_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    a, b = ctx.saved_tensors
    return _opaque_product(grad, b.t()), _opaque_product(grad.t(), a.t())


_opaque_product.register_autograd(_product_gradient, setup_context=_save_factors)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention [B, S, H, d] of q [B, S, H, d] over k and v [B, S, K, d]; one opaque operation to torch.compile."""
    return cast(Tensor, _attention(q, k, v))


# torch's fused kernel takes 107 ms where this takes 40 (forward and backward, bf16, B 8, S 512, H 6, d 64): its small products
# do not reach oneDNN. As there, no more than a block of scores is in memory, and the backward pass computes them again.
@library.custom_op("proxybench::causal_attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    queries, outs = _by_key_head(q * q.shape[-1] ** -0.5, k), _by_key_head(out, k)
    k, v, mask = _head_first(k), _head_first(v), _mask(q)
    for n, start, end in _blocks(q):
        weights = _weights(_rows(queries, n, start, end), k[n, :, :end], mask[: end - start, : end - start])
        outs[n, :, :, start:end] = _by_group(weights @ v[n, :, :end], end - start)
    return out


@library.custom_op("proxybench::causal_attention_backward", mutates_args=())
def _attention_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Grads:
    scale = q.shape[-1] ** -0.5
    grad_q = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    queries, grads, grads_q = _by_key_head(q * scale, k), _by_key_head(grad, k), _by_key_head(grad_q, k)
    k, v, mask = _head_first(k), _head_first(v), _mask(q)
    wide = torch.promote_types(k.dtype, torch.float32)  # many blocks add to the same key
    grad_k, grad_v = torch.zeros_like(k, dtype=wide), torch.zeros_like(v, dtype=wide)
    for n, start, end in _blocks(q):
        rows, grad_rows, keys = _rows(queries, n, start, end), _rows(grads, n, start, end), k[n, :, :end]
        weights = _weights(rows, keys, mask[: end - start, : end - start])
        grad_v[n, :, :end] += weights.transpose(2, 3) @ grad_rows
        grad_scores = torch._softmax_backward_data(grad_rows @ v[n, :, :end].transpose(2, 3), weights, -1, weights.dtype)
        grad_k[n, :, :end] += grad_scores.transpose(2, 3) @ rows
        grads_q[n, :, :, start:end] = _by_group(grad_scores @ keys, end - start)
    return grad_q.mul_(scale), _head_first(grad_k.to(k.dtype)), _head_first(grad_v.to(v.dtype))


def _by_key_head(x: Tensor, k: Tensor) -> Tensor:
    """View [B, K, G, S, d] of x [B, S, H, d]."""
    return x.view(*x.shape[:2], k.shape[2], -1, x.shape[-1]).permute(0, 2, 3, 1, 4)


def _head_first(x: Tensor) -> Tensor:
    """[B, K, S, d] of [B, S, K, d], or back."""
    return x.transpose(1, 2).contiguous()


def _blocks(q: Tensor) -> Iterator[tuple[slice, int, int]]:
    """Sequences, first query and last query (exclusive) of every block: so many sequences at a time as there are threads."""
    n_sequences, seq_len = q.shape[:2]
    for first in range(0, n_sequences, torch.get_num_threads()):
        for start in range(0, seq_len, QUERIES_PER_BLOCK):
            yield slice(first, first + torch.get_num_threads()), start, min(start + QUERIES_PER_BLOCK, seq_len)


def _rows(x: Tensor, n: slice, start: int, end: int) -> Tensor:
    """Rows [n, K, G * s, d] of x [B, K, G, S, d]: all queries that share a key head, in one matrix."""
    return x[n, :, :, start:end].flatten(2, 3)


def _by_group(rows: Tensor, s: int) -> Tensor:
    """View [n, K, G, s, ..] of rows [n, K, G * s, ..]."""
    return rows.view(*rows.shape[:2], -1, s, rows.shape[-1])


def _mask(q: Tensor) -> Tensor:
    """What is added to the scores of one block and its own keys, so that no key is later than its query."""
    side = min(q.shape[1], QUERIES_PER_BLOCK)
    return torch.full((side, side), -math.inf, dtype=q.dtype, device=q.device).triu(1)


def _weights(rows: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Attention weights [n, K, G * s, e] of the last s of e tokens."""
    scores = rows @ keys.transpose(2, 3)
    _by_group(scores, len(mask))[..., -len(mask) :] += mask
    return scores.softmax(-1)


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ARG001
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


@_attention_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Grads:  # noqa: ARG001
    return torch.empty_like(q).contiguous(), torch.empty_like(k).contiguous(), torch.empty_like(v).contiguous()


def _save_inputs(ctx: Any, inputs: Grads, output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs)


def _attention_gradient(ctx: Any, grad: Tensor) -> Grads:
    return cast(Grads, _attention_backward(grad, *ctx.saved_tensors))


_attention.register_autograd(_attention_gradient, setup_context=_save_inputs)


def cross_entropy_(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits [T, V] and targets [T], at least in fp32; overwrites the logits with their gradient."""
    return cast(Tensor, _CrossEntropy.apply(logits, targets))  # type: ignore[no-untyped-call]


class _CrossEntropy(torch.autograd.Function):
    """Blocks that stay in cache, gradient at once: 52 ms where torch's log_softmax and nll_loss take 280 (bf16, T 4096, V 8192)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        n_rows = max(1, LOGITS_PER_BLOCK // logits.shape[1])
        blocks = zip(torch.split(logits, n_rows), torch.split(targets, n_rows), strict=True)
        losses = [_replace_by_gradient(*block) for block in blocks]
        ctx.save_for_backward(logits)
        return torch.stack(losses).sum() / len(targets)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (grad_logits,) = ctx.saved_tensors
        return grad_logits * (grad / len(grad_logits)), None


def _replace_by_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of one block, whose logits become softmax less one at the target."""
    logs = log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    at = targets.unsqueeze(1)
    loss = -logs.gather(1, at).sum()
    logits.copy_(logs.exp_().scatter_add_(1, at, logs.new_full((1, 1), -1.0).expand_as(at)))
    return loss


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """x [.., D] over its root mean square, times weight [D], in the dtype given."""
    return cast(Tensor, _RmsNorm.apply(x, weight, eps, dtype))  # type: ignore[no-untyped-call]


class _RmsNorm(torch.autograd.Function):
    """Five passes over x and its gradient: 4.0 ms where torch's decomposition takes 10.0 (fp32 to bf16, T 4096, D 384)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        scale = (norm.square() / x.shape[-1] + eps).rsqrt()
        ctx.save_for_backward(x, weight, scale)
        out: Tensor = (x * scale).mul_(weight)
        return out.to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """With u = x * scale: dw = sum of g u; dx = scale (g w - u mean(g w u))."""
        x, weight, scale = ctx.saved_tensors
        grad, unit = grad.to(scale.dtype), x * scale
        products = grad * unit
        mean = (products @ weight.to(scale.dtype)).unsqueeze(-1) / x.shape[-1]
        grad_x = torch.addcmul(grad * weight, unit, mean, value=-1).mul_(scale)
        return grad_x.to(x.dtype), products.flatten(0, -2).sum(0).to(weight.dtype), None, None
