"""What a pipeline of stages costs beyond the work itself: uneven stages, filling and draining.

Layers are dealt out whole: the first stages hold ceil(n_layers / pp), the last holds the rest and the head.
Source: Narayanan et al. 2021, arXiv 2104.04473, section 2.2 (1F1B and its interleaved schedule).
"""

import numpy as np

from bench.cost.coefficients import Coefficients
from bench.cost.layout import Array
from bench.cost.workload import Workload

ROUNDING = 1e-9  # of a layer: a share of exactly so many layers is not rounded up


def layers_of_first_stage(n_layers: int, pp: Array) -> Array:
    """Layers on the first stage, the most that any stage holds."""
    return np.asarray(np.ceil(n_layers / pp))


def layers_of_last_stage(n_layers: int, pp: Array) -> Array:
    """Layers on the last stage, which holds the head too."""
    return np.asarray(np.floor(n_layers / pp))


def balanced_layers(n_layers: int, head_layers: float, pp: Array) -> tuple[Array, Array]:
    """Layers on the first and on the last stage, where a stage is closed as soon as the cost dealt out reaches its share.

    `head_layers` is the head's cost in layers. Stages without a layer come last. Source: nanotron, models/base.py, build_model; its
    public code closes a stage only beyond the share, but the memory that the sweep's DDP runs hold says at it.
    """
    share = (n_layers + head_layers) / pp
    first = np.minimum(n_layers, np.ceil(share - ROUNDING))
    before_last = np.minimum(n_layers, np.maximum(pp - 1, np.ceil(share * (pp - 1) - ROUNDING)))
    return np.asarray(first), np.asarray(n_layers - before_last)


def mean_stage_s(layer_s: Array, head_s: Array, n_layers: Array, pp: Array) -> Array:
    """Seconds of one pass through a stage, had the work been dealt out evenly."""
    return np.asarray((n_layers * layer_s + head_s) / pp)


def beat_s(layer_s: Array, head_s: Array, work: Workload) -> Array:
    """Seconds of one pass through the slowest stage, the beat of the pipeline; never less than the mean stage's.

    Equal stages hold ceil(n_layers / pp) layers, the last one what is left and the head. Balanced ones deal whole layers out so
    that the slowest is as fast as it can be.
    """
    mean = mean_stage_s(layer_s, head_s, work.n_layers, work.pp)
    equal = np.maximum(np.ceil(work.n_layers / work.pp) * layer_s, np.floor(work.n_layers / work.pp) * layer_s + head_s)
    balanced = _balanced_beat_s(layer_s, head_s, work.n_layers, work.pp)
    slowest = np.where(work.balanced_stages > 0, balanced, equal)
    return np.asarray(np.where(work.pp > 1, np.maximum(slowest, mean), mean))


def _balanced_beat_s(layer_s: Array, head_s: Array, n_layers: Array, pp: Array) -> Array:
    """The least over k of the slower of a last stage of k layers and the head, and of the others that share the rest."""
    others = np.maximum(1.0, pp - 1)
    even = np.floor((n_layers * layer_s - others * head_s) / (others + 1) / layer_s)
    beats = []
    for shift in (-1.0, 0.0, 1.0, 2.0):
        k = np.clip(even + shift, 0.0, n_layers)
        beats.append(np.maximum(k * layer_s + head_s, np.ceil((n_layers - k) / others) * layer_s))
    return np.asarray(np.minimum.reduce(beats))


def n_blocking_sends(work: Workload, by: Coefficients) -> Array:
    """Sends that stop both stages, one after another on the slowest path of a step; 0 where sends do not block.

    A stage at an end waits for two per micro-batch, one within for `blocking_inner_factor` times as many; the first
    micro-batch passes each boundary once forward and once back.
    """
    per_micro_batch = 2 * np.where(work.pp > 2, by["blocking_inner_factor"], 1.0)
    n = (work.n_micro - 1) * per_micro_batch + 2 * (work.pp - 1)
    return np.asarray(np.where((work.pp > 1) & (work.blocking_sends > 0), n, 0.0))


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
