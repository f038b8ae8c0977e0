"""Causal attention whose logits are capped to cap * tanh(logits / cap), as in Grok-1 and Gemma 2.

Shapes: B batch, s queries, the last of S tokens, H query heads, K key-value heads, G = H / K, d head width.
"""

import math

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import softmax

BLOCK = 128  # queries and keys of a block of the fused kernel


def attend_softcapped(q: Tensor, k: Tensor, v: Tensor, cap: float) -> Tensor:
    """[B, s, H, d] of q [B, s, H, d] over k and v [B, S, K, d]: on a GPU and compiled by one kernel, else with the scores in memory."""
    if torch.compiler.is_compiling() and q.is_cuda:
        return attend_fused(q, k, v, cap)
    return attend_in_chunks(q, k, v, cap)


def attend_fused(q: Tensor, k: Tensor, v: Tensor, cap: float) -> Tensor:
    """By the kernel that torch's compiler writes: on an H200 240 TFLOP/s forward (bf16, d 128); chunks reach 49, plain attention 540."""

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return 2 * cap * torch.sigmoid(score * (2 / cap)) - cap  # cap * tanh(score / cap), 1.4 times as fast on an H200

    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    blocks = causal_blocks(q.shape[2], k.shape[2], q.device)
    out: Tensor = flex_attention(q, k, v, score_mod=capped, block_mask=blocks, enable_gqa=q.shape[1] != k.shape[1])
    return out.transpose(1, 2)


def causal_blocks(n_queries: int, n_keys: int, device: torch.device) -> BlockMask:
    """Which keys the last `n_queries` of `n_keys` tokens see, by blocks; written down, since torch's own way evaluates every pair."""
    first = n_keys - n_queries  # position of the first query

    def sees(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
        return query + first >= key

    columns = torch.arange(-(-n_keys // BLOCK), dtype=torch.int32, device=device)
    start = first + BLOCK * torch.arange(-(-n_queries // BLOCK), dtype=torch.int32, device=device)  # [rows]
    n_whole = (start + 1) // BLOCK  # blocks of keys that all queries of a row see
    n_seen = ((start + BLOCK - 1) // BLOCK + 1).clamp(max=len(columns))
    in_part = (n_whole[:, None] + columns).clamp(max=len(columns) - 1)
    return BlockMask.from_kv_blocks(
        (n_seen - n_whole)[None, None],
        in_part[None, None].contiguous(),
        n_whole[None, None].contiguous(),
        columns.expand(1, 1, len(start), -1).contiguous(),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(n_queries, n_keys),
    )


def attend_in_chunks(q: Tensor, k: Tensor, v: Tensor, cap: float) -> Tensor:
    """By plain operations: queries in up to eight chunks, each over the keys that it may see; where all are queries, 9/16 of the scores."""
    (B, s, H, d), S, K = q.shape, k.shape[1], k.shape[2]
    q = (q * (d**-0.5 / cap)).view(B, s, K, H // K, d).permute(0, 2, 3, 1, 4)
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    step = max(BLOCK, math.ceil(s / 8))
    edges = [(start, min(start + step, s)) for start in range(0, s, step)]
    chunks = [_chunk(q[:, :, :, start:end], k[:, :, : S - s + end], v[:, :, : S - s + end], cap) for start, end in edges]
    return torch.cat(chunks, dim=3).permute(0, 3, 1, 2, 4).reshape(B, s, H, d)


def _chunk(q: Tensor, k: Tensor, v: Tensor, cap: float) -> Tensor:
    """[B, K, G, s, d]: the last s of S tokens, q [B, K, G, s, d] scaled by 1 / cap, over k and v [B, K, S, d]."""
    (B, K, G, s, d), n_keys = q.shape, k.shape[2]
    capped = (q.reshape(B, K, G * s, d) @ k.transpose(-2, -1)).tanh_().view(B, K, G, s, n_keys)
    mask = torch.full((s, n_keys), -math.inf, dtype=capped.dtype, device=q.device).triu(n_keys - s + 1)
    scores = torch.add(mask, capped, alpha=cap)  # one pass instead of two
    weights = softmax(scores, dim=-1, dtype=scores.dtype)  # the dtype keeps autocast from copying the scores to fp32
    return (weights.view(B, K, G * s, n_keys) @ v).view(B, K, G, s, d)
