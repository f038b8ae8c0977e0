"""What a pipeline of stages costs beyond the work itself: uneven stages, filling and draining.

Layers are dealt out whole: the first stages hold ceil(n_layers / pp), the last holds the rest and the head.
Source: Narayanan et al. 2021, arXiv 2104.04473, section 2.2 (1F1B and its interleaved schedule).
"""

import numpy as np

from bench.cost.layout import Array


def layers_of_first_stage(n_layers: int, pp: Array) -> Array:
    """Layers on the first stage, the most that any stage holds."""
    return np.asarray(np.ceil(n_layers / pp))


def layers_of_last_stage(n_layers: int, pp: Array) -> Array:
    """Layers on the last stage, which holds the head too."""
    return np.asarray(np.floor(n_layers / pp))


def mean_stage_s(layer_s: Array, head_s: Array, n_layers: int, pp: Array) -> Array:
    """Seconds of one pass through a stage, had the work been dealt out evenly."""
    return np.asarray((n_layers * layer_s + head_s) / pp)


def slowest_stage_s(layer_s: Array, head_s: Array, n_layers: int, pp: Array) -> Array:
    """Seconds of one pass through the slowest stage, the beat of the pipeline."""
    first = layers_of_first_stage(n_layers, pp) * layer_s
    last = layers_of_last_stage(n_layers, pp) * layer_s + head_s
    return np.asarray(np.maximum(np.where(pp > 1, first, 0.0), last))


def bubble_s(mean_s: Array, slowest_s: Array, n_micro: Array, pp: Array, n_virtual: Array) -> Array:
    """Idle seconds of a stage in a step: waiting for the slowest one, and filling and draining.

    `n_virtual` chunks per stage shorten filling and draining by as much (interleaved 1F1B).
    """
    return np.asarray(n_micro * (slowest_s - mean_s) + (pp - 1) * mean_s / n_virtual)


def micro_batches_in_flight(n_micro: Array, pp: Array, n_virtual: Array) -> Array:
    """Micro-batches whose activations the first stage holds at once, in units of the whole stage.

    1F1B holds `pp`; interleaving adds (pp - 1) / (pp n_virtual) of it. Never more than there are.
    Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4.2.3.
    """
    share = 1 + np.where(n_virtual > 1, (pp - 1) / (pp * n_virtual), 0.0)
    return np.asarray(np.minimum(pp * share, n_micro))


def micro_batches_in_flight_last(n_micro: Array, pp: Array, n_virtual: Array) -> Array:
    """The same for the last stage: one, and with chunks those of all earlier rounds."""
    return np.asarray(np.minimum(np.where(n_virtual > 1, ((n_virtual - 1) * pp + 1) / n_virtual, 1.0), n_micro))
