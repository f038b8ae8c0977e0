"""What the links of a site give to collectives: rates and latencies, and how much slower than a healthy network they are."""

from dataclasses import dataclass

import numpy as np

from bench.cost.coefficients import Coefficients
from bench.cost.layout import Array
from bench.cost.workload import Workload

# A ring all-gather on a healthy network of nodes of eight grows by 40 to 120 us a node; more is congestion.
# Source: probes of 256 MB inside 290 jobs on 16 to 512 H100 (Hugging Face nanotron sweep, 2025); faster ones are healthy.
HEALTHY_STEP_S = 1.3e-4
MOST_RING_STEP_S = 1.0e-4  # that a healthy network is taken to add; what is beyond HEALTHY_STEP_S is congestion
HEALTHY_RING_STEP_S = 3.0e-5  # at which the coefficient ring_step_s holds; a measured one scales it


@dataclass(frozen=True)
class Links:
    """Rates are of one device, latencies of one call."""

    up_bytes_per_s: Array
    out_bytes_per_s: Array  # its share of the node's ports
    scale_up_latency_s: Array
    scale_out_latency_s: Array  # per doubling of the domains in an all-reduce
    ring_step_s: Array  # per further domain in a ring
    congestion_s: Array  # per further domain, beyond a healthy network


def links_of(work: Workload, by: Coefficients) -> Links:
    """The links of a workload; ports give less the more nodes there are."""
    decay = np.exp(-by["scale_out_decay_per_doubling"] * np.log2(work.n_nodes))
    probed = ~np.isnan(work.ring_step_s) & (work.n_nodes > 1)
    measured = np.where(probed, work.ring_step_s, HEALTHY_RING_STEP_S)
    return Links(
        up_bytes_per_s=np.asarray(work.scale_up_bytes_per_s * by["scale_up_fraction"]),
        out_bytes_per_s=np.asarray(work.node_out_bytes_per_s / work.node_devices * by["scale_out_fraction"] * decay),
        scale_up_latency_s=np.asarray(by["scale_up_latency_s"]),
        scale_out_latency_s=np.asarray(by["scale_out_latency_s"] + work.out_latency_s),
        ring_step_s=np.asarray(by["ring_step_s"] * np.minimum(measured, MOST_RING_STEP_S) / HEALTHY_RING_STEP_S + work.out_latency_s),
        congestion_s=np.asarray(np.maximum(0.0, measured - HEALTHY_STEP_S)),
    )
