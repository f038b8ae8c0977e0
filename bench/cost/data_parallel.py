"""Exposed seconds of sharing gradients and weights over replicas, and of the optimizer.

Nothing hides more traffic than it takes itself: hidden fractions count as 1 where a fit puts them higher, so that a faster
device is never slower.
"""

import numpy as np

from bench.cost.coefficients import Coefficients
from bench.cost.collectives import WHOLE, all_gather_s, all_reduce_s, excess, ring_latency_s
from bench.cost.layer import memory_rate
from bench.cost.layout import Array
from bench.cost.links import Links, links_of
from bench.cost.workload import Workload

WEIGHT_BYTES = 2  # of a weight on the wire, bf16
OPTIMIZER_TRAFFIC_BYTES = 30  # read gradient (4), weight, two moments (12), write them and the bf16 weight (14): Adam, fp32 state
BACKWARD_SHARE = 2 / 3  # of a pass
FUSED_CALLS = 2.0  # ring latencies of a fused reduce-scatter and the gather after it
REPLICATED_HIDE = 0.5  # share of the last backward pass behind which shards are reduced over their copies


def local_parameters(work: Workload) -> Array:
    """Parameters of the mean device, experts dealt out over ep, before any sharding over data.

    Embedding and head lie on the end stages: counted with the geometric mean between all on one stage and spread over all.
    """
    layers = work.n_layers * (work.layer_parameters + work.expert_parameters / work.ep) / work.pp
    return np.asarray((layers + work.end_parameters / np.sqrt(work.pp)) / work.tp)


def data_parallel_s(work: Workload, by: Coefficients, beat_s: Array) -> Array:
    """Exposed seconds per step; `beat_s` is a pass through the slowest stage, behind which traffic hides."""
    links = links_of(work, by)
    exposed = np.where(work.shards_weights > 0, _sharded_weights_s(work, by, links, beat_s), _gradients_s(work, by, links, beat_s))
    return np.asarray(np.where(work.replicas > 1, exposed, 0.0))


def _inner(work: Workload) -> Array:
    """Ranks of a gradient's group that share a scale-up domain; tensor parallelism takes the nearest ranks."""
    return np.asarray(np.clip(work.domain_devices / work.tp, 1.0, work.replicas))


def _gradients_s(work: Workload, by: Coefficients, links: Links, beat_s: Array) -> Array:
    """Exposed seconds of reducing gradients once per step, copied or sharded."""
    traffic = np.where(work.shards_optimizer > 0, _zero1_s(work, by, links), _copied_s(work, by, links))
    bucketed = (work.shards_optimizer > 0) & (work.one_reduce_scatter < 1) & (work.hides_zero1 < 1)
    share = np.minimum(1.0, np.where(bucketed, by["hidden_zero1_fraction"], by["hidden_gradient_fraction"]))
    backward = BACKWARD_SHARE * beat_s
    hidden = np.where(work.hides_gradients > 0, share * backward * _head_start(work), 1e-9)
    return np.asarray(excess(traffic, hidden) + by["contention_fraction"] * np.minimum(traffic, backward))


def _head_start(work: Workload) -> Array:
    """Last backward passes behind which gradients can hide: one, and more where stages are cut into chunks.

    A rank is done with a chunk pp chunk-passes before it is done with the next: on average its gradients have half of all those
    of the other chunks, never more than there are micro-batches.
    """
    return np.asarray(1 + np.minimum(work.pp, work.n_micro) * (work.n_virtual - 1) / (2 * work.n_virtual))


def _copied_s(work: Workload, by: Coefficients, links: Links) -> Array:
    """Seconds of an all-reduce of all gradients, bucket by bucket."""
    inner, size = _inner(work), work.gradient_bytes * local_parameters(work)
    buckets = np.maximum(1.0, size / by["bucket_bytes"])
    congested, in_network = by["congested_gradient_factor"], work.reduces_in_network
    return all_reduce_s(size, work.replicas, inner, links, calls=buckets, congested=congested, in_network=in_network)


def _zero1_s(work: Workload, by: Coefficients, links: Links) -> Array:
    """Seconds of a reduce-scatter of gradients and an all-gather of weights, in one call each or bucket by bucket."""
    inner, parameters = _inner(work), local_parameters(work)
    ranks = np.minimum(work.shard_ranks, work.replicas)
    inner_shards = np.minimum(inner, ranks)
    congested = by["congested_gradient_factor"]
    bandwidth = all_gather_s(work.gradient_bytes * parameters, work.replicas, inner, links, congested)
    bandwidth = bandwidth + all_gather_s(WEIGHT_BYTES * parameters, ranks, inner_shards, links, congested)
    buckets = np.maximum(1.0, work.gradient_bytes * parameters / by["bucket_bytes"])
    fused = FUSED_CALLS * ring_latency_s(work.replicas, inner, links, 0.0)
    each = buckets * by["zero1_call_factor"] * ring_latency_s(ranks, inner_shards, links, by["congested_zero1_factor"])
    return np.asarray(bandwidth + np.where(work.one_reduce_scatter > 0, fused, each))


def _sharded_weights_s(work: Workload, by: Coefficients, links: Links, beat_s: Array) -> Array:
    """Exposed seconds of FSDP: per micro-batch and layer two gathers of weights and a scatter of gradients.

    Shards that are copied (hybrid sharding) are reduced over their copies once per step.
    """
    parameters, ranks = local_parameters(work), np.minimum(work.shard_ranks, work.replicas)
    inner = np.minimum(_inner(work), ranks)
    congested = by["congested_gradient_factor"]
    once = 2 * all_gather_s(WEIGHT_BYTES * parameters, ranks, inner, links, congested)
    once = once + all_gather_s(work.gradient_bytes * parameters, ranks, inner, links, congested)
    further = 3 * (work.n_layers - 1) * ring_latency_s(ranks, inner, links, congested) + 3 * work.n_layers * links.scale_up_latency_s
    traffic = once + further
    hidden = np.minimum(1.0, by["hidden_fsdp_fraction"]) * beat_s
    per_pass = excess(traffic, hidden) + by["contention_fraction"] * np.minimum(traffic, beat_s)
    copies = np.maximum(1.0, work.replicas / ranks)
    alone = np.ones_like(copies)
    owned, in_network = work.gradient_bytes * parameters / ranks, work.reduces_in_network
    reduced = all_reduce_s(owned, copies, alone, links, calls=work.n_layers, congested=congested, in_network=in_network)
    exposed = np.where(copies > WHOLE, excess(reduced, REPLICATED_HIDE * BACKWARD_SHARE * beat_s), 0.0)
    return np.asarray(work.n_micro * per_pass + exposed)


def optimizer_s(work: Workload, by: Coefficients) -> Array:
    """Seconds of the Adam step over the parameters that a device owns, bound by memory."""
    sharded = (work.shards_weights > 0) | (work.shards_optimizer > 0)
    owners = np.where(sharded, np.minimum(work.shard_ranks, work.replicas), 1.0)
    return np.asarray(by["optimizer_factor"] * OPTIMIZER_TRAFFIC_BYTES * local_parameters(work) / owners / memory_rate(work))
