"""Collectives over every kind of group: payload checked, then timed on all ranks with the same number of repeats.

Sizes, times and bandwidths are those of NVIDIA's nccl-tests. Every group has its own communicator and its own timeout.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup

from bench.facts.profile import Absent, Collective, CollectivePoint, GroupAxis, NodeLink, ProbePolicy, RepeatPolicy, bus_factor
from bench.facts.progress import Progress, extrapolated
from bench.run.clock import StepClock
from bench.run.devices import LocalDevice
from bench.run.exchange_payload import EXCHANGES, ITEM_BYTES, Payload
from bench.run.launch import RankPlace
from bench.run.repeat import MOST_SAMPLES, UNTIMED_CALLS, repeat

LINK_SHARE = 4  # the largest buffer over that with which a link is probed
LINK_SAMPLES = 2
MEMORY_SHARE = 8  # the largest buffer, where none is given, is the free memory over this


@dataclass(frozen=True)
class RankGroup:
    """Ranks that exchange with one another."""

    axis: GroupAxis
    ranks: tuple[int, ...]


def nodes_of_ranks(place: RankPlace) -> list[int]:
    """The node of every rank, told by the rank that its first process has; collective."""
    return [place.rank] if place.world_size == 1 else _gathered(place.rank - place.local_rank, None)


def communication_library() -> str:
    """What carries the collectives of the default group; empty for a world of one."""
    return str(dist.get_backend()) if dist.is_initialized() else ""


def leave_world() -> None:
    """Nothing; this rank no longer takes part in collectives, and nobody waits for it."""
    if dist.is_initialized():
        dist.destroy_process_group()


def find_groups(node_of: Sequence[int]) -> tuple[RankGroup, ...]:
    """The groups to probe, from the node of every rank: within the first node, one rank of each node, and all ranks.

    >>> [(g.axis.value, g.ranks) for g in find_groups([0, 0, 0, 1, 1, 1])]
    [('within_node', (0, 1)), ('within_node', (0, 1, 2)), ('across_nodes', (0, 3)), ('world', (0, 1, 2, 3, 4, 5))]
    """
    members: dict[int, list[int]] = {}
    for rank, node in enumerate(node_of):
        members.setdefault(node, []).append(rank)
    first, heads = next(iter(members.values())), [ranks[0] for ranks in members.values()]
    within = [RankGroup(GroupAxis.WITHIN_NODE, tuple(first[:n])) for n in _group_sizes(len(first))]
    across = [RankGroup(GroupAxis.ACROSS_NODES, tuple(heads[:n])) for n in _group_sizes(len(heads))]
    is_both = len(heads) > 1 and len(node_of) > len(heads)
    return (*within, *across, *([RankGroup(GroupAxis.WORLD, tuple(range(len(node_of))))] if is_both else []))


def _group_sizes(most: int) -> list[int]:
    """Powers of two from 2, and the whole."""
    return sorted({2**k for k in range(1, most.bit_length()) if 2**k <= most} | ({most} if most > 1 else set()))


def buffer_sizes(policy: ProbePolicy, free_bytes: int) -> list[int]:
    """Sizes in bytes, each `collective_size_factor` times the one before, up to the limit."""
    limit = policy.collective_max_bytes or free_bytes // MEMORY_SHARE
    sizes = [policy.collective_min_bytes]
    while sizes[-1] * policy.collective_size_factor <= limit:
        sizes.append(sizes[-1] * policy.collective_size_factor)
    return sizes


def probe_collectives(
    policy: ProbePolicy, device: LocalDevice, node_of: Sequence[int], tell: Progress
) -> tuple[tuple[CollectivePoint, ...], tuple[Absent, ...]]:
    """Every collective at every size over every group, the same on every rank; and what this backend lacks.

    To be called by all ranks of the default process group. `node_of` says for each rank on which node it is.
    """
    if len(node_of) == 1:
        return (), (Absent(what="collectives", reason="one rank has nobody to exchange with; device.n_devices=2 or more has"),)
    free_bytes = min(_gathered(device.free_memory_bytes(len(node_of)), None))
    points: list[CollectivePoint] = []
    absent: list[Absent] = []
    cases, begun = [(group, collective) for group in find_groups(node_of) for collective in Collective], time.perf_counter()
    for i, (group, collective) in enumerate(cases):
        left = extrapolated(time.perf_counter() - begun, i, len(cases))
        tell(f"collectives: {i + 1} of {len(cases)}, {collective} over {len(group.ranks)} ranks, {group.axis}", left)
        told = _probe_one(policy, device, group, collective, buffer_sizes(policy, free_bytes))
        points += [p for p in told if isinstance(p, CollectivePoint)]
        absent += [a for a in told if isinstance(a, Absent)]
    return tuple(points), tuple(absent)


def probe_links(policy: ProbePolicy, device: LocalDevice, node_of: Sequence[int]) -> tuple[NodeLink, ...]:
    """The link of every node, the same on every rank; none where there are fewer than three nodes, of which two cannot be told apart.

    Neighbours exchange pair by pair while all others are idle. A pair is as slow as the slower of its links, so each node is
    credited with the better of its two pairs. To be called by all ranks of the default process group.
    """
    heads = [node_of.index(node) for node in dict.fromkeys(node_of)]
    if len(heads) < 3:
        return ()
    size = buffer_sizes(policy, min(_gathered(device.free_memory_bytes(len(node_of)), None)))[-1] // LINK_SHARE
    pairs = [RankGroup(GroupAxis.ACROSS_NODES, (head, heads[(i + 1) % len(heads)])) for i, head in enumerate(heads)]
    rates = [_pair_bytes_per_s(device, pair, size) for pair in pairs]
    return tuple(NodeLink(node=i, bytes_per_s=max(rates[i], rates[i - 1])) for i in range(len(heads)))


def _pair_bytes_per_s(device: LocalDevice, pair: RankGroup, size_bytes: int) -> float:
    """Bytes per second from one to the other and back again, one way; known to every rank."""
    own, rank = 0.0, dist.get_rank()
    if rank in pair.ranks:
        buffer, clock = torch.zeros(size_bytes, dtype=torch.uint8, device=device.torch_device), StepClock(device, LINK_SAMPLES + 1)
        there, back = (dist.send, dist.recv) if rank == pair.ranks[0] else (dist.recv, dist.send)
        other = pair.ranks[1] if rank == pair.ranks[0] else pair.ranks[0]
        there(buffer, other)
        back(buffer, other)
        clock.start()
        for _ in range(LINK_SAMPLES):
            there(buffer, other)
            back(buffer, other)
            clock.mark()
        own = 2 * size_bytes / min(clock.stop()[0])
    return float(_gathered(own, None)[pair.ranks[0]])


def _probe_one(
    policy: ProbePolicy, device: LocalDevice, group: RankGroup, collective: Collective, sizes: Sequence[int]
) -> list[CollectivePoint | Absent]:
    """All sizes of one collective; known to every rank, also to those that only wait."""
    communicator = dist.new_group(list(group.ranks), timeout=timedelta(seconds=policy.collective_timeout_s))
    own: list[CollectivePoint | Absent] = []
    if dist.get_rank() in group.ranks:
        assert communicator is not None
        own = _points(policy, device, group, collective, communicator, sizes)
        dist.destroy_process_group(communicator)
    everyone: list[list[CollectivePoint | Absent]] = _gathered(own, None)
    missing = [told for rank in group.ranks for told in everyone[rank] if isinstance(told, Absent)]
    return [missing[0]] if missing else everyone[group.ranks[0]]


def _points(  # noqa: PLR0917  # what a rank has to know, each from elsewhere
    policy: ProbePolicy,
    device: LocalDevice,
    group: RankGroup,
    collective: Collective,
    communicator: ProcessGroup,
    sizes: Sequence[int],
) -> list[CollectivePoint | Absent]:
    try:
        EXCHANGES[collective](_payload(device, group, communicator, ITEM_BYTES * len(group.ranks))).call()
        device.synchronize()
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return [Absent(what=f"{collective} over {dist.get_backend(communicator)}", reason=str(error).splitlines()[0])]
    return [measure_point(policy.repeat, device, group, collective, communicator, size) for size in sizes]


def measure_point(  # noqa: PLR0917
    policy: RepeatPolicy,
    device: LocalDevice,
    group: RankGroup,
    collective: Collective,
    communicator: ProcessGroup,
    size_bytes: int,
) -> CollectivePoint:
    """One collective at one size, the same on every rank of the group; the first calls check the payload and are not timed."""
    payload = _payload(device, group, communicator, size_bytes)
    exchange = EXCHANGES[collective](payload)
    exchange.call()
    correct = all(_gathered(exchange.is_right(), communicator))
    exchange.clear()
    clock = StepClock(device, MOST_SAMPLES)
    timing = repeat(policy, lambda n: _window(clock, exchange.call, communicator, n))
    size = payload.n_items * ITEM_BYTES
    rate = size / timing.median_s
    return CollectivePoint(
        collective=collective,
        axis=group.axis,
        n_ranks=len(group.ranks),
        size_bytes=size,
        timing=timing,
        algorithm_bytes_per_s=rate,
        bus_bytes_per_s=rate * bus_factor(collective, len(group.ranks)),
        correct=correct,
    )


def _payload(device: LocalDevice, group: RankGroup, communicator: ProcessGroup, size_bytes: int) -> Payload:
    n_ranks, index = len(group.ranks), group.ranks.index(dist.get_rank())
    per_rank = max(1, size_bytes // (ITEM_BYTES * n_ranks))
    return Payload(communicator, group.ranks, index, per_rank * n_ranks, device.torch_device)


def _window(clock: StepClock, call: Callable[[], object], communicator: ProcessGroup, n_samples: int) -> list[float]:
    """Means over the ranks of each of `n_samples` calls in a row, as nccl-tests takes them."""
    for _ in range(UNTIMED_CALLS):  # they bring the ranks together: the first to arrive would time its wait
        call()
    clock.start()
    for _ in range(n_samples):
        call()
        clock.mark()
    everyone = _gathered(clock.stop()[0], communicator)
    return [sum(of_ranks) / len(of_ranks) for of_ranks in zip(*everyone, strict=True)]


def _gathered(own: Any, communicator: ProcessGroup | None) -> list[Any]:
    everyone: list[Any] = [None] * dist.get_world_size(communicator)
    dist.all_gather_object(everyone, own, group=communicator)
    return everyone
