"""A target on parts of a cluster with slower and faster links: a grid to be looked up, each point the plan found for it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bench.cost.posterior import Posterior
from bench.cost.scaling import speeds, stacked
from bench.cost.search import best_plan
from bench.errors import DoesNotFit
from bench.facts.figure import Interval
from bench.facts.hardware import Cluster, Link
from bench.facts.model import Target
from bench.facts.scaling import WhatIf
from bench.facts.stack import Stack

PARTS = (16, 8, 4, 2, 1)  # of the nodes, one in so many
LINK_FACTORS = (0.25, 0.5, 1.0, 2.0)  # of the rate between nodes


def what_if(target: Target, cluster: Cluster, stack: Stack, posterior: Posterior) -> WhatIf | None:
    """Tokens per second on parts of the cluster, by the factor on the rate of its links between nodes; None where it never fits."""
    n_nodes = sorted({max(1, cluster.n_nodes // part) for part in PARTS})
    kept = [n for n in n_nodes if _fits(target, replace(cluster, n_nodes=n), stack, posterior)]
    if not kept:
        return None
    columns = [_speeds(target, with_links(cluster, factor), stack, posterior, n_nodes=kept) for factor in LINK_FACTORS]
    return WhatIf(
        target=target.name,
        cluster=cluster.name,
        devices_per_node=cluster.devices_per_node,
        n_devices=tuple(n * cluster.devices_per_node for n in kept),
        link_factors=LINK_FACTORS,
        tokens_per_s=tuple(zip(*columns, strict=True)),
    )


def with_links(cluster: Cluster, factor: float) -> Cluster:
    """The cluster with another rate between its nodes."""
    rate = cluster.scale_out.bytes_per_s
    scaled = Link(bytes_per_s=replace(rate, value=rate.value * factor), latency_s=cluster.scale_out.latency_s)
    return replace(cluster, scale_out=scaled)


def _fits(target: Target, cluster: Cluster, stack: Stack, posterior: Posterior) -> bool:
    try:
        best_plan(target, cluster, stack, posterior)
    except DoesNotFit:
        return False
    return True


def _speeds(target: Target, cluster: Cluster, stack: Stack, posterior: Posterior, *, n_nodes: Sequence[int]) -> list[Interval]:
    layouts = [best_plan(target, replace(cluster, n_nodes=n), stack, posterior) for n in n_nodes]
    assert all(np.size(layout.dp) == 1 for layout in layouts)
    return speeds(target, cluster, stack, posterior, stacked(layouts))
