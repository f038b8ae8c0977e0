"""Context parallelism: each rank holds two chunks of every sequence, one early and one late, and gathers keys and values.

Causal attention gives late tokens more work; an early and a late chunk together give every rank the same.
Source: Grattafiori et al. 2024, arXiv 2407.21783, section 3.3.2 (all-gather of keys and values, 2 * cp chunks).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from bench.run.exchange import gather_parts
from bench.run.softcap import attend_softcapped


def own_positions(seq_len: int, rank: int, n_ranks: int) -> Tensor:
    """Positions [S / n] of the tokens that a rank holds: chunk r and chunk 2n - 1 - r of 2n."""
    chunks = torch.arange(seq_len).view(2 * n_ranks, -1)
    return torch.cat((chunks[rank], chunks[2 * n_ranks - 1 - rank]))


@dataclass(frozen=True)
class ContextAttention:
    """Attention of this rank's queries [B, S / n, H, d] over the keys and values [B, S / n, K, d] of all ranks."""

    group: ProcessGroup
    rank: int
    n_ranks: int
    softcap: float | None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, S / n, H, d]."""
        k, v = self._in_order(k), self._in_order(v)
        half = q.shape[1] // 2
        early, late = (self.rank + 1) * half, (2 * self.n_ranks - self.rank) * half
        return torch.cat(
            (self._attend(q[:, :half], k[:, :early], v[:, :early]), self._attend(q[:, half:], k[:, :late], v[:, :late])), dim=1
        )

    def _in_order(self, x: Tensor) -> Tensor:
        """[B, S, K, d] by position, from this rank's [B, S / n, K, d]."""
        joined = gather_parts(x, 1, self.group)
        order = torch.cat([own_positions(joined.shape[1], r, self.n_ranks) for r in range(self.n_ranks)]).argsort()
        return joined.index_select(1, order.to(x.device))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, s, H, d]: the last s of S' tokens over all of them."""
        if self.softcap is not None:
            return attend_softcapped(q, k, v, self.softcap)
        s, n_shared = q.shape[1], q.shape[2] // k.shape[2]
        wide_k, wide_v = (x.transpose(1, 2).repeat_interleave(n_shared, dim=1) for x in (k, v))
        mask = lower_right_mask(s, k.shape[1], q.device)
        return scaled_dot_product_attention(q.transpose(1, 2), wide_k, wide_v, attn_mask=mask).transpose(1, 2)


def lower_right_mask(n_queries: int, n_keys: int, device: torch.device) -> Tensor:
    """Which of `n_keys` the last `n_queries` of them may see, [s, S']: torch's own bias where its fused kernel may take it.

    Without a fused kernel that bias becomes this tensor anyway, and fake tensors do not know the bias.
    """
    if torch._C._get_flash_sdp_enabled():
        return causal_lower_right(n_queries, n_keys)
    return torch.ones((n_queries, n_keys), dtype=torch.bool, device=device).tril(n_keys - n_queries)
