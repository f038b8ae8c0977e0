"""A measured run on more hosts: its own compute as measured, its exchanges by the laws of the rings that carry them.

Source: Thakur, Rabenseifner, Gropp 2005, "Optimization of Collective Communication Operations in MPICH", section 4.1 (rings);
torch 2.13, torch/csrc/distributed/c10d/ProcessGroupGloo.cpp: a reduce-scatter over gloo is an all-reduce; torch/nn/parallel/
distributed.py: DDP's first bucket is full at 1 MiB, the others at 25 MiB; FSDP2 on a CPU has no streams, and waits for every exchange.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bench.cost.collectives import SHARPNESS
from bench.cost.one_f_one_b import StageTimes, schedule_s
from bench.cost.parameters import embedding_parameters, head_parameters, layer_parameters, n_parameters, one_norm_parameters
from bench.facts.lab import LabPoint
from bench.facts.model import ModelShape
from bench.facts.plan import ParallelPlan, Sharding
from bench.facts.profile import Collective

BYTES = 4  # of a parameter, a gradient and an activation: all in fp32
FIRST_BUCKET_BYTES, BUCKET_BYTES = 2**20, 25 * 2**20
ROUNDS = {Collective.ALL_REDUCE: 2, Collective.REDUCE_SCATTER: 2, Collective.ALL_GATHER: 1}  # of a ring over gloo


@dataclass(frozen=True)
class Ring:
    """What carries exchanges between hosts."""

    bytes_per_s: float  # of one rank
    empty_s: float  # that a message takes however short it is; the next one is on its way meanwhile
    # by which two hosts, whose messages there and back share a connection, are slower than the law: (bytes, factor), sizes ascending
    pair_factors: dict[Collective, tuple[tuple[float, float], ...]]

    def pair_factor(self, collective: Collective, n_bytes: float) -> float:
        """The factor of a size, between those that are known in proportion to the logarithm."""
        known = self.pair_factors.get(collective, ((1.0, 1.0),))
        return float(np.interp(math.log(n_bytes), [math.log(size) for size, _ in known], [factor for _, factor in known]))


@dataclass(frozen=True)
class OwnWork:
    """Seconds of a step that a rank spends by itself, where it holds the whole model or its host's share of it."""

    forward_s: float
    backward_s: float
    optimizer_s: float

    @property
    def total_s(self) -> float:
        """Their sum."""
        return self.forward_s + self.backward_s + self.optimizer_s


def own_work(alone: LabPoint) -> OwnWork:
    """What a point on one host says; the phases share out what the timed steps took."""
    assert alone.n_hosts == 1, alone
    assert alone.forward_s is not None
    assert alone.backward_s is not None
    assert alone.optimizer_s is not None
    scale = alone.step_s / (alone.forward_s + alone.backward_s + alone.optimizer_s)
    return OwnWork(scale * alone.forward_s, scale * alone.backward_s, scale * alone.optimizer_s)


def exchange_s(collective: Collective, n_bytes: float, n_ranks: int, ring: Ring) -> float:
    """Seconds of a collective over a ring, of the whole buffer's bytes. One rank has nothing to exchange.

    >>> exchange_s(Collective.ALL_REDUCE, 8e6, 4, Ring(1e6, 0.0, {}))
    12.0
    """
    if n_ranks == 1:
        return 0.0
    messages = ROUNDS[collective] * (n_ranks - 1)
    factor = ring.pair_factor(collective, n_bytes) if n_ranks == 2 else 1.0
    return factor * messages * message_s(ring, n_bytes / n_ranks)


def message_s(ring: Ring, n_bytes: float) -> float:
    """Seconds of one of many messages: a little more than what it takes empty, or what its bytes take, whichever is longer."""
    first, second = ring.empty_s, n_bytes / ring.bytes_per_s
    longer = max(first, second)
    return longer * ((first / longer) ** SHARPNESS + (second / longer) ** SHARPNESS) ** (1 / SHARPNESS) if longer else 0.0


def step_parts_s(work: OwnWork, point: LabPoint, ring: Ring) -> dict[str, float]:
    """Seconds of a step by part. Of the point, its model, plan and batch are read, and nothing that was measured."""
    plan = point.plan
    if plan.pipeline_parallel_size > 1:
        step_s = pipeline_s(work, point, ring)
        own_s = work.total_s / plan.pipeline_parallel_size
        return {"own work": own_s, "bubble and sends": step_s - own_s}
    if plan.sharding in (Sharding.ZERO2, Sharding.ZERO3):
        exposed_s = sharded_s(point.model, plan, ring)
    else:
        exposed_s = exposed_reduction_s(work, point.model, plan.data_parallel_size, ring)
    return {"own work": work.total_s, "exposed exchanges": exposed_s}


def pipeline_s(work: OwnWork, point: LabPoint, ring: Ring) -> float:
    """Seconds of a step of equal stages, each on a host of its own."""
    n_stages, n_micro = point.plan.pipeline_parallel_size, point.batch.n_micro_batches
    n_bytes = BYTES * point.batch.micro_batch_size * point.model.seq_len * point.model.d_model
    one_way_s = message_s(ring, n_bytes)
    times = StageTimes(
        forward_s=work.forward_s / n_stages / n_micro,
        backward_s=work.backward_s / n_stages / n_micro,
        one_way_s=one_way_s,
        both_ways_s=one_way_s * ring.pair_factor(Collective.SEND_RECV, n_bytes),
    )
    return schedule_s(times, n_stages, n_micro) + work.optimizer_s / n_stages


def sharded_s(model: ModelShape, plan: ParallelPlan, ring: Ring) -> float:
    """Seconds of gathering every unit of weights before its passes and of scattering its gradients."""
    n, seconds = plan.data_parallel_size, 0.0
    for n_elements in units(model):
        size = BYTES * n_elements / plan.tensor_parallel_size
        gathers = 2 if plan.sharding is Sharding.ZERO3 else 1
        seconds += gathers * exchange_s(Collective.ALL_GATHER, size, n, ring) + exchange_s(Collective.REDUCE_SCATTER, size, n, ring)
    return seconds


def units(model: ModelShape) -> list[int]:
    """Parameters that are gathered together: each layer, and the rest."""
    ends = n_parameters(model) - model.n_layers * layer_parameters(model)
    return [*model.n_layers * [layer_parameters(model)], ends]


def exposed_reduction_s(work: OwnWork, model: ModelShape, n_ranks: int, ring: Ring) -> float:
    """Seconds that buckets of gradients take beyond the backward pass, each sent as soon as it is full and the one before is through."""
    done_s = 0.0
    for ready_s, n_bytes in buckets(work.backward_s, model):
        done_s = max(done_s, ready_s) + exchange_s(Collective.ALL_REDUCE, n_bytes, n_ranks, ring)
    return max(0.0, done_s - work.backward_s)


def buckets(backward_s: float, model: ModelShape) -> Iterator[tuple[float, float]]:
    """When each bucket is full, in seconds of the backward pass, and its bytes; the pass is shared out by parameters of its products."""
    tensors, limit, held, passed = list(_gradients(model)), FIRST_BUCKET_BYTES, 0.0, 0.0
    whole = sum(n for n, _ in tensors)
    for i, (n_worked, n_elements) in enumerate(tensors):
        passed += n_worked / whole
        held += BYTES * n_elements
        if held and (held >= limit or i == len(tensors) - 1):
            yield backward_s * passed, held
            held, limit = 0.0, BUCKET_BYTES


def _gradients(model: ModelShape) -> Iterator[tuple[int, int]]:
    """Parameters that are multiplied by, and whose gradient is then there, in the order of the backward pass."""
    vocabulary = model.vocab_size * model.d_model
    yield vocabulary, head_parameters(model) + one_norm_parameters(model)
    yield from model.n_layers * [(layer_parameters(model), layer_parameters(model))]
    yield 0, embedding_parameters(model)
