"""Shapes of models, and what a model is to be trained on."""

import math
from enum import StrEnum

from bench.facts.figure import Figure, fact, require
from bench.facts.hardware import NARROW, Precision

# Far beyond every model: searches count through layers and experts, and products of the widths must not overflow.
MOST = {
    **dict.fromkeys(("n_layers", "n_experts", "experts_top_k"), 10_000),
    **dict.fromkeys(("d_model", "n_heads", "n_kv_heads", "head_dim"), 1_000_000),
    **dict.fromkeys(("d_ff", "d_ff_expert"), 10_000_000),
    **dict.fromkeys(("vocab_size", "seq_len"), 100_000_000),
}


class Activation(StrEnum):
    """Nonlinearity of the feed-forward."""

    GELU = "gelu"
    SILU = "silu"


class NormKind(StrEnum):
    """RMSNorm has a weight, LayerNorm a weight and a bias."""

    RMS = "rms"
    LAYER = "layer"


class Position(StrEnum):
    """How a token knows where it stands."""

    ROPE = "rope"
    LEARNED = "learned"


@fact
class ModelShape:
    """A decoder-only transformer, from GPT-3 to Grok-2.

    Grok-1 is norms on both sides of attention and feed-forward (`sandwich_norm`), grouped queries, soft-capped
    attention logits, gated-GELU experts, tied embedding. Llama and GPT-3 are the same code with other settings.
    """

    name: str
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int  # width of the dense feed-forward; 0 where only experts are used
    vocab_size: int
    seq_len: int
    gated: bool = True
    activation: Activation = Activation.SILU
    norm: NormKind = NormKind.RMS
    sandwich_norm: bool = False
    position: Position = Position.ROPE
    rope_base: float = 10000.0
    bias: bool = False
    tied_embedding: bool = False
    n_experts: int = 0
    experts_top_k: int = 0
    d_ff_expert: int = 0
    expert_capacity_factor: float = 1.0
    attention_softcap: float | None = None
    router_softcap: float | None = None
    final_softcap: float | None = None
    embedding_multiplier: float = 1.0
    output_multiplier: float = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("n_layers", "d_model", "n_heads", "n_kv_heads", "head_dim", "vocab_size", "seq_len"):
            require(getattr(self, name) >= 1, f"{name} {getattr(self, name)} must be at least 1")
        for name in ("d_ff", "n_experts", "experts_top_k", "d_ff_expert"):
            require(getattr(self, name) >= 0, f"{name} {getattr(self, name)} must not be negative")
        for name, most in MOST.items():
            require(getattr(self, name) <= most, f"{name} {getattr(self, name)} must be at most {most:,}")
        heads, kv = self.n_heads, self.n_kv_heads
        require(heads % kv == 0, lambda: f"n_heads {heads} is not a multiple of n_kv_heads {kv}; use {nearest_divisors(kv, heads)}")
        require(
            self.position is not Position.ROPE or self.head_dim % 2 == 0,
            f"head_dim {self.head_dim} is odd; rotary embedding needs an even one",
        )
        require(self.d_ff > 0 or self.n_experts > 0, "d_ff 0 and n_experts 0 leave no feed-forward; set one of them")
        require(self.experts_top_k <= self.n_experts, f"experts_top_k {self.experts_top_k} is above n_experts {self.n_experts}")
        if self.n_experts:
            require(
                self.experts_top_k >= 1 and self.d_ff_expert >= 1,
                f"n_experts {self.n_experts} needs experts_top_k and d_ff_expert of at least 1",
            )

    @property
    def is_moe(self) -> bool:
        """Whether a router chooses among experts."""
        return self.n_experts > 0


@fact
class Target:
    """What is to be trained: a full-size model, on how many tokens, in which batches."""

    name: str
    model: ModelShape
    n_tokens: Figure
    max_global_batch_size: Figure  # sequences per optimizer step, at most
    precision: Precision = Precision.BF16  # of the linear layers; everything else is bf16

    def __post_init__(self) -> None:
        trained = (Precision.BF16, *NARROW)
        require(self.precision in trained, f"precision {self.precision} is none that targets are predicted in; use {', '.join(trained)}")
        require(self.n_tokens.value > 0, f"n_tokens {self.n_tokens.value:g} must be above 0")
        require(self.max_global_batch_size.value >= 1, f"max_global_batch_size {self.max_global_batch_size.value:g} must be at least 1")


MOST_TRIED = 100_000  # divisors of numbers up to its square are all found; of larger ones, those next to nothing and next to the whole


def nearest_divisors(wanted: int, whole: int) -> str:
    """The divisors of `whole` next to `wanted`, as text for an error: `4 or 8`.

    >>> nearest_divisors(7, 512)
    '4 or 8'
    """
    small = [d for d in range(1, min(math.isqrt(whole), MOST_TRIED) + 1) if whole % d == 0]
    divisors = [*small, *(whole // d for d in reversed(small))]
    below = [d for d in divisors if d <= wanted][-1:]
    above = [d for d in divisors if d > wanted][:1]
    return " or ".join(str(d) for d in below + above)
