"""The decoder-only transformer of a ModelShape: GPT-3, Llama, Grok-1 and Grok-2 are settings of one code.

Shapes: B batch, S sequence, T = B * S tokens, D model width, H query heads, K key-value heads, G = H / K,
d head width, F feed-forward width, E experts, C slots of one expert, V vocabulary.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, log_softmax, nll_loss, rms_norm, scaled_dot_product_attention, silu

from bench.facts.model import Activation, ModelShape, NormKind, Position
from bench.run import kernels
from bench.run.softcap import attend_softcapped

INITIAL_STD = 0.02
# Grok-1 and GPT-3 use the tanh form of GELU; on CPU, in torch 2.13, the exact one takes 0.4 of its time.
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {Activation.GELU: gelu, Activation.SILU: silu}


Mix = Callable[[Tensor, Tensor, Tensor], Tensor]


class Transformer(nn.Module):
    """Logits [B, S, V] of tokens [B, S]; with targets [B, S], their mean cross-entropy in fp32."""

    rotary: Tensor | None  # [2, S, 1, d]
    owns_logits = True  # a tensor-parallel plan joins them from all ranks, and autograd wants them as they are
    order: Tensor  # [S], the positions that this model sees: all, in order, but for a context-parallel plan

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding: nn.Embedding | None = nn.Embedding(shape.vocab_size, shape.d_model)
        self.positions = nn.Embedding(shape.seq_len, shape.d_model) if shape.position == Position.LEARNED else None
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.norm = norm(shape)
        self.head: nn.Linear | None = Linear(shape.d_model, shape.vocab_size, bias=False)
        self.register_buffer("order", torch.arange(shape.seq_len), persistent=False)
        self.register_buffer("rotary", rotary_table(shape) if shape.position == Position.ROPE else None, persistent=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw the weights from the current seed and fill the tables; also after `to_empty` on a model made on the meta device."""
        if self.shape.tied_embedding and self.head is not None and self.embedding is not None:
            self.head.weight = self.embedding.weight
        self.order.copy_(torch.arange(self.shape.seq_len))
        if self.rotary is not None:
            self.rotary.copy_(rotary_table(self.shape))
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
            else:
                # What is added to the residual starts narrower. Source: Radford et al. 2019, section 2.3.
                is_residual = name.endswith(("attention.o.weight", "down.weight", "down"))
                nn.init.normal_(parameter, std=INITIAL_STD * (2 * self.shape.n_layers) ** -0.5 if is_residual else INITIAL_STD)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        """A pipeline stage lacks embedding or head: it takes or gives [B, S, D] there."""
        if self.embedding is not None:
            x = self.embed(x)
        for layer in self.layers:
            x = layer(x, self.rotary)
        if self.head is None:
            return x
        logits = self.logits(self.norm(x))
        return logits if targets is None else self.loss(logits, targets)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in fp32. The logits may be used up: on a CPU their gradient takes their place."""
        logits, targets = logits.flatten(0, 1), targets.flatten()
        if self.owns_logits and kernels.is_cpu_eager(logits) and logits.requires_grad:
            return kernels.cross_entropy_(logits, targets)
        # Naming the dtype lets CUDA read bf16 logits without an fp32 copy of [T, V].
        return nll_loss(log_softmax(logits, dim=-1, dtype=torch.float32), targets)

    def embed(self, tokens: Tensor) -> Tensor:
        """[B, S, D], scaled, with learned positions where the shape has them."""
        assert self.embedding is not None
        x: Tensor = self.embedding(tokens)
        if self.shape.embedding_multiplier != 1:
            x = x * self.shape.embedding_multiplier
        if self.positions is not None:
            x = x + self.positions(self.order[: tokens.shape[1]])
        return x

    def logits(self, x: Tensor) -> Tensor:
        """[B, S, V]; the multiplier is applied to the D columns of x, which are fewer than the V of the logits."""
        assert self.head is not None
        multiplier, cap = self.shape.output_multiplier, self.shape.final_softcap
        scale = multiplier if cap is None else multiplier / cap
        logits: Tensor = self.head(x if scale == 1 else x * scale)
        return logits if cap is None else logits.tanh_() * cap


class Block(nn.Module):
    """[B, S, D] after attention and feed-forward, each normed before (and with `sandwich_norm` after) and added to its input."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.attention_norm = norm(shape)
        self.attention = Attention(shape)
        self.attention_post_norm = norm(shape) if shape.sandwich_norm else nn.Identity()
        self.feed_forward_norm = norm(shape)
        self.feed_forward = feed_forward(shape)
        self.feed_forward_post_norm = norm(shape) if shape.sandwich_norm else nn.Identity()

    def forward(self, x: Tensor, rotary: Tensor | None) -> Tensor:
        x = x + self.attention_post_norm(self.attention(self.attention_norm(x), rotary))
        out: Tensor = x + self.feed_forward_post_norm(self.feed_forward(self.feed_forward_norm(x)))
        return out


class Attention(nn.Module):
    """[B, S, D] mixed over earlier tokens. Heads are counted from the tensors, so a shard of them needs no other code."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        # a context-parallel plan puts its own here
        self.mix: Mix = attend if shape.attention_softcap is None else partial(attend_softcapped, cap=shape.attention_softcap)
        q_width, kv_width = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
        self.q = Linear(shape.d_model, q_width, bias=shape.bias)
        self.k = Linear(shape.d_model, kv_width, bias=shape.bias)
        self.v = Linear(shape.d_model, kv_width, bias=shape.bias)
        self.o = Linear(q_width, shape.d_model, bias=shape.bias)

    def forward(self, x: Tensor, rotary: Tensor | None) -> Tensor:
        B, S, _ = x.shape
        q, k, v = (projection(x).view(B, S, -1, self.head_dim) for projection in (self.q, self.k, self.v))
        if rotary is not None:
            q, k = rotate(q, rotary[:, :S]), rotate(k, rotary[:, :S])
        out: Tensor = self.o(self.mix(q, k, v).reshape(B, S, -1))
        return out


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention [B, S, H, d] of q [B, S, H, d] over k and v [B, S, K, d]."""
    if kernels.is_own_attention(q):
        return kernels.causal_attention(q, k, v)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]).transpose(1, 2)


def rotary_table(shape: ModelShape) -> Tensor:
    """Cosine and signed sine [2, S, 1, d] of every position and frequency. Source: Su et al. 2021, section 3.2.2."""
    half = torch.arange(shape.head_dim // 2, dtype=torch.float32)
    frequency = shape.rope_base ** (-2 * half / shape.head_dim)
    angle = torch.arange(shape.seq_len, dtype=torch.float32)[:, None, None] * frequency
    return torch.stack((angle.cos().repeat(1, 1, 2), torch.cat((-angle.sin(), angle.sin()), dim=-1)))


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """x [B, S, H, d] turned by its position: the halves (a, b) become (a cos - b sin, b cos + a sin)."""
    cos, sin = rotary.to(x.dtype)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def feed_forward(shape: ModelShape) -> nn.Module:
    """The feed-forward of one layer: dense, experts, or both side by side."""
    if not shape.is_moe:
        return FeedForward(shape)
    return DenseAndExperts(shape) if shape.d_ff else Experts(shape)


class FeedForward(nn.Module):
    """[B, S, D] through one hidden layer of F units, gated or not."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.activate = ACTIVATIONS[shape.activation]
        self.up = Linear(shape.d_model, shape.d_ff, bias=shape.bias)
        self.gate = Linear(shape.d_model, shape.d_ff, bias=shape.bias) if shape.gated else None
        self.down = Linear(shape.d_ff, shape.d_model, bias=shape.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activate(self.up(x)) if self.gate is None else self.activate(self.gate(x)) * self.up(x)
        out: Tensor = self.down(hidden)
        return out


class Experts(nn.Module):
    """[B, S, D] through the `experts_top_k` best of E feed-forwards per token, none with a bias.

    Every expert has C = ceil(T * top_k * capacity_factor / E) slots and takes the C tokens that chose it with the highest
    gates; others are dropped, and slots left over hold a token with gate 0. So shapes and FLOPs are the same in every step
    and the host never waits: token drop with padding, as in NVIDIA's published NeMo runs of Grok-1.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.top_k, self.softcap = shape.experts_top_k, shape.router_softcap
        self.slots_per_token = shape.experts_top_k * shape.expert_capacity_factor / shape.n_experts
        self.router = Linear(shape.d_model, shape.n_experts, bias=False)
        self.matrices = ExpertMatrices(shape)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        gates, chosen = self.assign(tokens)
        out = self.matrices(tokens.index_select(0, chosen.flatten()).view(*chosen.shape, -1))
        out = out * gates.unsqueeze(-1).to(out.dtype)
        mixed: Tensor = out.new_zeros(tokens.shape).index_add(0, chosen.flatten(), out.flatten(0, 1))
        return mixed.view_as(x)

    def assign(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Gate and token of every slot [E, C], from tokens [T, D]. Gates of one token's experts add up to one before any drop."""
        n_slots = min(len(tokens), math.ceil(len(tokens) * self.slots_per_token))
        logits = self.router(tokens).float()
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        top, experts = logits.topk(self.top_k, dim=1)
        gates = torch.zeros_like(logits).scatter(1, experts, top.softmax(dim=1))
        return gates.t().topk(n_slots, dim=1)


class ExpertMatrices(nn.Module):
    """Slots [E, C, D] through the feed-forward of their expert. A shard of the experts, or of their F units, needs no other code."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        E, D, F = shape.n_experts, shape.d_model, shape.d_ff_expert
        self.activate = ACTIVATIONS[shape.activation]
        self.up = nn.Parameter(torch.empty(E, D, F))
        self.gate = nn.Parameter(torch.empty(E, D, F)) if shape.gated else None
        self.down = nn.Parameter(torch.empty(E, F, D))

    def forward(self, slots: Tensor) -> Tensor:
        up = slots @ self.up
        hidden = self.activate(up) if self.gate is None else self.activate(slots @ self.gate) * up
        out: Tensor = hidden @ self.down
        return out


class DenseAndExperts(nn.Module):
    """[B, S, D]: a dense feed-forward beside the experts, their sum over sqrt(2), as in Grok-2."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.dense = FeedForward(shape)
        self.experts = Experts(shape)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.dense(x) + self.experts(x)) * 0.5**0.5
        return out


class Linear(nn.Linear):
    """A linear layer; in fp32 on a CPU by oneDNN, where torch's own goes to MKL."""

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None and kernels.is_own_linear(x, self.weight):
            return kernels.linear(x, self.weight)
        return super().forward(x)


def norm(shape: ModelShape) -> nn.Module:
    """A norm over D, in the dtype of the products that follow: under autocast its result is cast once, not by each of them."""
    return (RMSNorm if shape.norm == NormKind.RMS else LayerNorm)(shape.d_model, eps=1e-5)


class RMSNorm(nn.RMSNorm):
    """RMSNorm whose weight takes the dtype of its input: torch has no fused kernel for bf16 activations and an fp32 weight."""

    def forward(self, x: Tensor) -> Tensor:
        if kernels.is_cpu_eager(x):
            return kernels.rms_norm(x, self.weight, self.eps or 0.0, product_dtype(x))
        return rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps).to(product_dtype(x))


class LayerNorm(nn.LayerNorm):
    """LayerNorm with a bias."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(product_dtype(x))


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which matrix products take x: autocast's where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
