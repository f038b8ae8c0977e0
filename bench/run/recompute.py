"""Layers whose activations are computed again in the backward pass."""

from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from bench.facts.plan import Recompute
from bench.run.transformer import Transformer


def recompute(model: Transformer, how: Recompute) -> None:
    """Nothing; whole layers, or attention only, are computed again in the backward pass."""
    for i, layer in enumerate(model.layers):
        if how is Recompute.FULL:
            model.layers[i] = checkpoint_wrapper(layer)
        elif how is Recompute.SELECTIVE:
            layer.attention = checkpoint_wrapper(layer.attention)  # type: ignore[arg-type]
