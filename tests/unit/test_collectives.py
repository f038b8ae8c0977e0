"""Collectives over domains, by hand."""

import numpy as np
import pytest

from bench.cost.collectives import (
    all_gather_s,
    all_reduce_s,
    excess,
    group_bytes_per_s,
    n_domains,
    ring_latency_s,
    soft_maximum,
    tree_latency_s,
)
from bench.cost.layout import Array
from bench.cost.links import Links


def n(value: float) -> Array:
    return np.asarray(float(value))


LINKS = Links(
    up_bytes_per_s=n(100), out_bytes_per_s=n(5), scale_up_latency_s=n(0.5), scale_out_latency_s=n(2), ring_step_s=n(3), congestion_s=n(10)
)


def test_one_rank_has_nothing_to_gather() -> None:
    assert all_gather_s(n(1e9), n(1), n(1), LINKS) == 0


def test_a_gather_in_a_domain_is_its_bytes_and_its_start() -> None:
    # 8 ranks, 7/8 of 800 bytes over 100, and half a second
    assert all_gather_s(n(800), n(8), n(8), LINKS) == pytest.approx(7 + 0.5)


def test_a_gather_across_domains_uses_the_ports_of_its_ranks_together() -> None:
    # 16 ranks, 8 in a domain: 8 x 5 bytes/s; 15/16 of 800 bytes; one further domain
    assert group_bytes_per_s(n(16), n(8), LINKS) == 40
    assert all_gather_s(n(800), n(16), n(8), LINKS) == pytest.approx(750 / 40 + 0.5 + 3)


def test_ports_never_give_more_than_the_link_inside() -> None:
    assert group_bytes_per_s(n(128), n(64), LINKS) == 100


def test_a_ring_waits_once_per_further_domain_and_feels_congestion() -> None:
    assert n_domains(n(32), n(8)) == 4
    assert ring_latency_s(n(32), n(8), LINKS, 0.0) == pytest.approx(9)
    assert ring_latency_s(n(32), n(8), LINKS, 0.5) == pytest.approx(9 + 15)
    assert ring_latency_s(n(8), n(8), LINKS, 0.5) == 0


def test_a_tree_waits_by_the_doubling() -> None:
    assert tree_latency_s(n(24), n(8), LINKS, 0.0) == pytest.approx(2 * 2)
    assert tree_latency_s(n(8), n(8), LINKS, 0.0) == 0


def test_an_all_reduce_passes_everything_twice_and_once_where_switches_add_up() -> None:
    # 32 ranks in 4 domains: 31/32 of 800 bytes over 40; the tree of 5 nodes waits 2 log2(5) a call, the switches of any number 2 log2(3)
    by_ring, by_switches = (
        all_reduce_s(n(800), n(32), n(8), LINKS, calls=10, congested=0.0, in_network=n(switches)) for switches in (0, 1)
    )
    once = 775 / 40 + 0.5
    assert by_ring == pytest.approx(2 * once + 10 * 2 * np.log2(5))
    assert by_switches == pytest.approx(once + 10 * 2 * np.log2(3))
    further = all_reduce_s(n(800), n(3200), n(8), LINKS, calls=10, congested=0.0, in_network=n(1))
    assert further - by_switches == pytest.approx((3199 / 3200 - 31 / 32) * 20)


def test_the_soft_maximum_is_the_larger_unless_they_are_alike() -> None:
    assert soft_maximum(n(10), n(1)) == pytest.approx(10, rel=1e-3)
    assert soft_maximum(n(1), n(1)) == pytest.approx(2**0.25)
    assert soft_maximum(n(0), n(3)) == pytest.approx(3)


def test_what_is_left_of_a_hidden_time() -> None:
    assert excess(n(1), n(100)) == pytest.approx(0, abs=1e-6)
    assert excess(n(100), n(1)) == pytest.approx(99, rel=1e-3)
