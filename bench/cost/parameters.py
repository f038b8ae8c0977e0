"""Counts of parameters, exact, from the shape alone."""

from bench.facts.model import ModelShape, NormKind, Position


def attention_parameters(shape: ModelShape) -> int:
    """Weights and biases of the four projections of one layer.

    Grok-1: 2 * 6144 * 6144 + 2 * 6144 * 1024.

    >>> attention_parameters(ModelShape(name="grok-1", n_layers=64, d_model=6144, n_heads=48, n_kv_heads=8, head_dim=128,
    ...     d_ff=0, vocab_size=131072, seq_len=8192, n_experts=8, experts_top_k=2, d_ff_expert=32768))
    88080384
    """
    q_width, kv_width = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    weights = 2 * shape.d_model * (q_width + kv_width)
    biases = q_width + 2 * kv_width + shape.d_model
    return weights + biases * shape.bias


def dense_parameters(shape: ModelShape) -> int:
    """Weights and biases of the dense feed-forward of one layer: three matrices if gated, else two."""
    n_inward = 1 + shape.gated
    biases = n_inward * shape.d_ff + shape.d_model
    return (n_inward + 1) * shape.d_model * shape.d_ff + biases * (shape.bias and shape.d_ff > 0)


def expert_parameters(shape: ModelShape) -> int:
    """Weights of one expert of one layer; experts have no bias."""
    return (2 + shape.gated) * shape.d_model * shape.d_ff_expert


def router_parameters(shape: ModelShape) -> int:
    """Weights of the router of one layer."""
    return shape.d_model * shape.n_experts


def norm_parameters(shape: ModelShape) -> int:
    """Parameters of the norms of one layer: two norms, four with `sandwich_norm`."""
    return (4 if shape.sandwich_norm else 2) * one_norm_parameters(shape)


def one_norm_parameters(shape: ModelShape) -> int:
    """A weight per column, and a bias per column in LayerNorm."""
    return shape.d_model * (2 if shape.norm == NormKind.LAYER else 1)


def layer_parameters(shape: ModelShape) -> int:
    """Parameters of one layer, all experts counted."""
    shared = attention_parameters(shape) + dense_parameters(shape) + router_parameters(shape) + norm_parameters(shape)
    return shared + shape.n_experts * expert_parameters(shape)


def embedding_parameters(shape: ModelShape) -> int:
    """The token table, and the table of learned positions."""
    n_positions = shape.seq_len if shape.position == Position.LEARNED else 0
    return (shape.vocab_size + n_positions) * shape.d_model


def head_parameters(shape: ModelShape) -> int:
    """The output projection; 0 where it shares the token table."""
    return 0 if shape.tied_embedding else shape.vocab_size * shape.d_model


def n_parameters(shape: ModelShape) -> int:
    """All parameters of the model, every expert counted.

    Source: Dubey et al. 2024, table 3, for the shape of Llama 3 8B; its released weights have this many parameters.

    >>> n_parameters(ModelShape(name="llama-3-8b", n_layers=32, d_model=4096, n_heads=32, n_kv_heads=8, head_dim=128,
    ...     d_ff=14336, vocab_size=128256, seq_len=8192))
    8030261248
    """
    ends = embedding_parameters(shape) + one_norm_parameters(shape) + head_parameters(shape)
    return shape.n_layers * layer_parameters(shape) + ends


def n_active_parameters(shape: ModelShape) -> int:
    """Parameters that one token passes through: `experts_top_k` experts per layer, everything else whole.

    Grok-1: 315684820992 less 64 layers of 6 idle experts of 603979776. The release says 86B, without saying how it counts.

    >>> n_active_parameters(ModelShape(name="grok-1", n_layers=64, d_model=6144, n_heads=48, n_kv_heads=8, head_dim=128,
    ...     d_ff=0, vocab_size=131072, seq_len=8192, n_experts=8, experts_top_k=2, d_ff_expert=32768,
    ...     sandwich_norm=True, tied_embedding=True))
    83756587008
    """
    idle = shape.n_experts - shape.experts_top_k
    return n_parameters(shape) - shape.n_layers * idle * expert_parameters(shape)
