"""Seconds of collective operations over a group that spans domains, and the smooth maximum that overlap is counted with.

`size_bytes` is the whole buffer that every rank ends or begins with. One rank has nothing to exchange: its collectives are free.
"""

import numpy as np

from bench.cost.layout import Array
from bench.cost.links import Links

SHARPNESS = 4.0  # of the smooth maximum: two equal times make 1.19 of one
# Nodes of a group crossing less than this share of a further domain are taken to lie within one: axis sizes are not always whole.
WHOLE = 1.001


def soft_maximum(first: Array, second: Array) -> Array:
    """A little more than the larger of two times that run side by side and share a device."""
    larger = np.maximum(first, second) + 1e-30
    return np.asarray(larger * ((first / larger) ** SHARPNESS + (second / larger) ** SHARPNESS) ** (1 / SHARPNESS))


def excess(time_s: Array, hidden_s: Array) -> Array:
    """What is left of a time behind another that hides it."""
    return np.asarray(soft_maximum(time_s, hidden_s) - hidden_s)


def n_domains(n_ranks: Array, inner: Array) -> Array:
    """Domains that a group spans, `inner` of its ranks in each; at least one."""
    return np.asarray(np.maximum(1.0, n_ranks / np.maximum(1.0, inner)))


def group_bytes_per_s(n_ranks: Array, inner: Array, links: Links) -> Array:
    """Rate of a ring: that of the scale-up link, or of the ports of its ranks in one node, which it uses together."""
    across = np.minimum(links.out_bytes_per_s * inner, links.up_bytes_per_s)
    return np.asarray(np.where(n_domains(n_ranks, inner) > WHOLE, across, links.up_bytes_per_s))


def ring_latency_s(n_ranks: Array, inner: Array, links: Links, congested: Array | float) -> Array:
    """Seconds that a ring waits: a step per further domain, and that of congestion, of which a call feels a share."""
    domains = n_domains(n_ranks, inner)
    return np.asarray(np.where(domains > WHOLE, (links.ring_step_s + congested * links.congestion_s) * (domains - 1), 0.0))


def all_gather_s(size_bytes: Array, n_ranks: Array, inner: Array, links: Links, congested: Array | float = 0.0) -> Array:
    """Seconds until every rank holds `size_bytes`, of which each brought an equal share; a reduce-scatter takes as long.

    Source: Thakur, Rabenseifner, Gropp 2005, "Optimization of Collective Communication Operations in MPICH", section 4.1 (ring);
    NVIDIA NCCL 2.30, src/graph/tuning.cc, for the step per node.
    """
    bandwidth = size_bytes * (n_ranks - 1) / n_ranks / group_bytes_per_s(n_ranks, inner, links)
    once = bandwidth + links.scale_up_latency_s + ring_latency_s(n_ranks, inner, links, congested)
    return np.asarray(np.where(n_ranks > 1, once, 0.0))


def all_reduce_s(
    size_bytes: Array, n_ranks: Array, inner: Array, links: Links, *, calls: Array | float, congested: Array | float, in_network: Array
) -> Array:
    """Seconds until every rank holds the sum of `size_bytes` of each, in so many calls: a ring passes every byte twice, a tree tells the
    latency; switches that add up pass it once each way, and wait once, however many domains there are.

    Source: Thakur, Rabenseifner, Gropp 2005, section 4.5 (a reduce-scatter and an all-gather); Graham et al. 2016, "Scalable Hierarchical
    Aggregation Protocol (SHARP)".
    """
    passes = np.where(in_network > 0, 1.0, 2.0)
    bandwidth = passes * (all_gather_s(size_bytes, n_ranks, inner, links) - ring_latency_s(n_ranks, inner, links, 0.0))
    ranks = np.where(in_network > 0, np.minimum(n_ranks, 2 * inner), n_ranks)
    return np.asarray(bandwidth + calls * tree_latency_s(ranks, inner, links, congested))


def tree_latency_s(n_ranks: Array, inner: Array, links: Links, congested: Array | float) -> Array:
    """Seconds that an all-reduce waits for its tree over domains: one latency per doubling, and congestion as in a ring.

    Source: 70 to 95 us per doubling from 32 to 8,192 H100 (NVIDIA GTC 2024 s62129; arXiv 2411.13055).
    """
    domains = n_domains(n_ranks, inner)
    once = links.scale_out_latency_s * np.log2(domains + 1) + congested * links.congestion_s * (domains - 1)
    return np.asarray(np.where(domains > WHOLE, once, 0.0))
