"""What collectives carry: numbers of which every rank knows what has to arrive."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import P2POp, ProcessGroup

from bench.facts.profile import Collective

ITEM_BYTES = 4  # fp32, as in nccl-tests
# torch 2.13 renames both; 2.11 knows only the old names
gather_whole: Callable[..., object] = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
scatter_sum: Callable[..., object] = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
PERIOD = 251  # of the numbers sent; a prime, so that no shift by a chunk goes unseen


@dataclass(frozen=True)
class Payload:
    """Buffers of `n_items` numbers, a multiple of the group's size, on rank `index` of the group. Small whole numbers: sums are exact."""

    group: ProcessGroup
    ranks: tuple[int, ...]
    index: int
    n_items: int
    device: torch.device

    @property
    def n_ranks(self) -> int:
        """Ranks of the group."""
        return len(self.ranks)

    def numbers(self, offset: int, n_items: int | None = None) -> Tensor:
        """0, 1, 2, ... up to the period and again, `offset` added."""
        return torch.arange(self.n_items if n_items is None else n_items, device=self.device).remainder(PERIOD).add(offset).float()

    def empty(self, n_items: int) -> Tensor:
        """Room for so many numbers, none of them right."""
        return torch.full((n_items,), -1.0, device=self.device)


@dataclass(frozen=True)
class Exchange:
    """A collective with its buffers: `call` it once, ask whether what arrived `is_right`, and `clear` what would grow in further calls."""

    call: Callable[[], object]
    is_right: Callable[[], bool]
    clear: Callable[[], object]


def all_reduce(p: Payload) -> Exchange:
    """Every rank holds the sum of all buffers."""
    buffer = p.numbers(p.index)

    def is_right() -> bool:
        return torch.equal(buffer, p.numbers(0) * p.n_ranks + sum(range(p.n_ranks)))

    return Exchange(lambda: dist.all_reduce(buffer, group=p.group), is_right, buffer.zero_)


def all_gather(p: Payload) -> Exchange:
    """Every rank holds every rank's share; the size is that of all shares."""
    share, whole = p.numbers(p.index, p.n_items // p.n_ranks), p.empty(p.n_items)

    def is_right() -> bool:
        return all(torch.equal(part, p.numbers(i, len(part))) for i, part in enumerate(whole.chunk(p.n_ranks)))

    return Exchange(lambda: gather_whole(whole, share, group=p.group), is_right, share.zero_)


def reduce_scatter(p: Payload) -> Exchange:
    """Every rank holds the sum of its share of all buffers; the size is that of a whole buffer."""
    whole, share = p.numbers(p.index), p.empty(p.n_items // p.n_ranks)

    def is_right() -> bool:
        return torch.equal(share, p.numbers(0).chunk(p.n_ranks)[p.index] * p.n_ranks + sum(range(p.n_ranks)))

    return Exchange(lambda: scatter_sum(share, whole, group=p.group), is_right, whole.zero_)


def all_to_all(p: Payload) -> Exchange:
    """Every rank holds its share of every rank's buffer; the size is that of a buffer."""
    sent, arrived = p.numbers(p.index), p.empty(p.n_items)

    def is_right() -> bool:
        base = p.numbers(0).chunk(p.n_ranks)[p.index]
        return all(torch.equal(part, base + i) for i, part in enumerate(arrived.chunk(p.n_ranks)))

    return Exchange(lambda: dist.all_to_all_single(arrived, sent, group=p.group), is_right, sent.zero_)


def send_recv(p: Payload) -> Exchange:
    """Every rank holds the buffer of the rank before it; all send at the same time."""
    sent, arrived = p.numbers(p.index), p.empty(p.n_items)
    after, before = (p.index + 1) % p.n_ranks, (p.index - 1) % p.n_ranks
    operations = [P2POp(dist.isend, sent, p.ranks[after], p.group), P2POp(dist.irecv, arrived, p.ranks[before], p.group)]

    def call() -> None:
        for work in dist.batch_isend_irecv(operations):
            work.wait()

    return Exchange(call, lambda: torch.equal(arrived, p.numbers(before)), sent.zero_)


EXCHANGES: dict[Collective, Callable[[Payload], Exchange]] = {
    Collective.ALL_REDUCE: all_reduce,
    Collective.ALL_GATHER: all_gather,
    Collective.REDUCE_SCATTER: reduce_scatter,
    Collective.ALL_TO_ALL: all_to_all,
    Collective.SEND_RECV: send_recv,
}
