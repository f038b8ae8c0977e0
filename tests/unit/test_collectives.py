"""Collectives against times worked by hand: 100 bytes/s inside a domain, 10 bytes/s beyond, 1 s and 2 s of latency."""

import numpy as np
import pytest

from bench.cost.collectives import (
    all_gather_s,
    all_reduce_s,
    all_to_all_s,
    hierarchical_all_gather_s,
    hierarchical_all_reduce_s,
    hierarchical_all_to_all_s,
    reduce_scatter_s,
    send_s,
)
from bench.cost.layout import Array

INNER = (np.asarray(100.0), np.asarray(1.0))
OUTER = (np.asarray(10.0), np.asarray(2.0))


def n(value: float) -> Array:
    return np.asarray(value)


def test_all_gather_sends_all_but_the_own_share() -> None:
    # 4 ranks, 400 bytes: 300 bytes arrive at 100 bytes/s in log2(4) = 2 rounds of 1 s
    assert all_gather_s(n(400), n(4), *INNER) == pytest.approx(3 + 2)
    assert reduce_scatter_s(n(400), n(4), *INNER) == pytest.approx(5)


def test_all_reduce_is_a_reduce_scatter_and_an_all_gather() -> None:
    assert all_reduce_s(n(400), n(4), *INNER) == pytest.approx(10)


def test_all_to_all_keeps_the_own_share() -> None:
    assert all_to_all_s(n(800), n(8), *INNER) == pytest.approx(7 + 3)


def test_send_is_free_where_nobody_is_next() -> None:
    assert send_s(n(100), n(1), *INNER) == 0
    assert send_s(n(100), n(2), *INNER) == pytest.approx(2)


@pytest.mark.parametrize("collective", [all_gather_s, reduce_scatter_s, all_reduce_s, all_to_all_s, send_s])
def test_one_rank_is_free(collective: object) -> None:
    assert callable(collective)
    assert collective(n(1e9), n(1), *INNER) == 0


def test_every_rank_carries_its_own_share_between_domains() -> None:
    # 8 ranks in domains of 4, 800 bytes. Inside: 600 bytes at 100 and 2 rounds of 1 s = 8 s.
    # Between: a share of 200 bytes over 2 domains, 100 bytes at 10 and 1 round of 2 s = 12 s.
    assert hierarchical_all_gather_s(n(800), n(8), n(4), INNER, OUTER) == pytest.approx(8 + 12)
    assert hierarchical_all_reduce_s(n(800), n(8), n(4), INNER, OUTER) == pytest.approx(40)


def test_all_to_all_leaves_the_domain_with_the_ranks_outside() -> None:
    # 8 ranks in domains of 4, 800 bytes: 300 stay inside (3 s and 2 rounds), 400 leave (40 s and 1 round of 2 s)
    assert hierarchical_all_to_all_s(n(800), n(8), n(4), INNER, OUTER) == pytest.approx(5 + 42)


def test_a_group_within_one_domain_never_leaves_it() -> None:
    within = all_reduce_s(n(800), n(8), *INNER)
    assert hierarchical_all_reduce_s(n(800), n(8), n(8), INNER, OUTER) == pytest.approx(within)
    assert hierarchical_all_to_all_s(n(800), n(8), n(8), INNER, OUTER) == pytest.approx(all_to_all_s(n(800), n(8), *INNER))
