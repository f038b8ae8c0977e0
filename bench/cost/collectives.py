"""Seconds of collective operations: latency per doubling of the ranks plus bytes over rate (alpha-beta).

`size_bytes` is the whole buffer that every rank ends or begins with, `bytes_per_s` what one rank sends in one
direction. One rank has nothing to exchange: every collective of one rank is free.
Source: Thakur, Rabenseifner, Gropp 2005, "Optimization of Collective Communication Operations in MPICH", sections 4 to 6.
"""

import numpy as np

from bench.cost.layout import Array


def all_gather_s(size_bytes: Array, n_ranks: Array, bytes_per_s: Array, latency_s: Array) -> Array:
    """Seconds until every rank holds `size_bytes`, of which each brought an equal share."""
    return np.asarray((n_ranks - 1) / n_ranks * size_bytes / bytes_per_s + np.log2(n_ranks) * latency_s)


def reduce_scatter_s(size_bytes: Array, n_ranks: Array, bytes_per_s: Array, latency_s: Array) -> Array:
    """Seconds until every rank holds the sum of its share: an all-gather run backwards."""
    return all_gather_s(size_bytes, n_ranks, bytes_per_s, latency_s)


def all_reduce_s(size_bytes: Array, n_ranks: Array, bytes_per_s: Array, latency_s: Array) -> Array:
    """Seconds until every rank holds the sum: a reduce-scatter and an all-gather."""
    return np.asarray(2 * all_gather_s(size_bytes, n_ranks, bytes_per_s, latency_s))


def all_to_all_s(size_bytes: Array, n_ranks: Array, bytes_per_s: Array, latency_s: Array) -> Array:
    """Seconds until every rank has sent an equal share of its own `size_bytes` to every other."""
    return all_gather_s(size_bytes, n_ranks, bytes_per_s, latency_s)


def send_s(size_bytes: Array, n_ranks: Array, bytes_per_s: Array, latency_s: Array) -> Array:
    """Seconds of one message to the next of `n_ranks`."""
    return np.asarray(np.where(n_ranks > 1, size_bytes / bytes_per_s + latency_s, 0.0))


def hierarchical_all_gather_s(
    size_bytes: Array,
    n_ranks: Array,
    n_inner: Array,
    inner: tuple[Array, Array],
    outer: tuple[Array, Array],
) -> Array:
    """Seconds of an all-gather or a reduce-scatter over domains of `n_inner` ranks.

    `inner` and `outer` are (bytes_per_s, latency_s) inside a domain and between domains. Between domains every rank
    carries its own share, so that all of a node's network ports work at once.
    """
    within = all_gather_s(size_bytes, n_inner, *inner)
    between = all_gather_s(size_bytes / n_inner, n_ranks / n_inner, *outer)
    return np.asarray(within + between)


def hierarchical_all_reduce_s(
    size_bytes: Array,
    n_ranks: Array,
    n_inner: Array,
    inner: tuple[Array, Array],
    outer: tuple[Array, Array],
) -> Array:
    """Seconds of an all-reduce over domains: reduce-scatter inwards, all-reduce across, all-gather back."""
    return np.asarray(2 * hierarchical_all_gather_s(size_bytes, n_ranks, n_inner, inner, outer))


def hierarchical_all_to_all_s(
    size_bytes: Array,
    n_ranks: Array,
    n_inner: Array,
    inner: tuple[Array, Array],
    outer: tuple[Array, Array],
) -> Array:
    """Seconds of an all-to-all that leaves the domain with the share of ranks outside it; nothing rescues those bytes."""
    within = size_bytes * (n_inner - 1) / n_ranks / inner[0] + np.log2(n_inner) * inner[1]
    between = size_bytes * (n_ranks - n_inner) / n_ranks / outer[0] + np.log2(n_ranks / n_inner) * outer[1]
    return np.asarray(within + between)
