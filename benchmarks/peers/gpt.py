"""A GPT in the manner of nanoGPT, as a peer to compare with: LayerNorm, learned positions, one projection for q, k and v, GELU."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention

from bench.facts.model import ModelShape

ROUND_TO = 16  # columns of the feed-forward


class Gpt(nn.Module):
    """Mean cross-entropy of tokens [B, S] and targets [B, S], with as many parameters as wanted, to within ROUND_TO columns."""

    def __init__(self, shape: ModelShape, n_parameters: int) -> None:
        super().__init__()
        width = shape.d_model
        self.tokens = nn.Embedding(shape.vocab_size, width)
        self.positions = nn.Embedding(shape.seq_len, width)
        per_layer = (n_parameters - (shape.vocab_size + shape.seq_len) * width) / shape.n_layers
        d_ff = round((per_layer - 4 * width**2) / (2 * width) / ROUND_TO) * ROUND_TO
        self.blocks = nn.ModuleList(GptBlock(width, shape.n_heads, d_ff) for _ in range(shape.n_layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, shape.vocab_size, bias=False)
        self.apply(self._initialise)
        self.head.weight = self.tokens.weight

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return cross_entropy(logits.flatten(0, 1), targets.flatten())


class GptBlock(nn.Module):
    """[B, S, D] after attention and feed-forward."""

    def __init__(self, width: int, n_heads: int, d_ff: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, d_ff, bias=False), nn.Linear(d_ff, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.attention_norm(x))
        return x + self.down(gelu(self.up(self.feed_forward_norm(x))))

    def attend(self, x: Tensor) -> Tensor:
        """[B, S, D] mixed over earlier tokens."""
        q, k, v = (part.unflatten(2, (self.n_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        return self.out(scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
