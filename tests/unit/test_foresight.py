"""Predictions from one and two hosts: they read no answer, they follow what was seen, and they know what a second host is worth."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bench.config.compose import compose
from bench.cost.foresight import believe, forecast, promised_log_sd, sick_share
from bench.cost.growth import OwnWork, Ring, exchange_s, step_parts_s
from bench.cost.naive import doubling_s, linear_s
from bench.facts.lab import LabNetwork, LabPoint
from bench.facts.plan import Sharding
from bench.facts.profile import Collective, CollectivePoint, GroupAxis, NetworkProbe, NodeLink, Timing
from tests.unit.test_growth import point

PROBED = (2**12, 2**16, 2**20)


@pytest.fixture(scope="module")
def network() -> LabNetwork:
    lab = compose(["lab=short"]).lab
    assert lab is not None
    return lab.networks["fast"]


def probe(ring: Ring, n_nodes: int = 2, links: tuple[float, ...] = ()) -> NetworkProbe:
    """What two hosts would see of a ring."""
    points = []
    for size in PROBED if n_nodes == 2 else ():
        seconds = exchange_s(Collective.ALL_REDUCE, size, 2, ring)
        timing = Timing(samples_s=(seconds,) * 3, calls_per_sample=1, median_s=seconds, low_s=seconds, high_s=seconds, confidence=0.95)
        rate = size / seconds
        points.append(
            CollectivePoint(
                collective=Collective.ALL_REDUCE, axis=GroupAxis.ACROSS_NODES, n_ranks=2, size_bytes=size, timing=timing,
                algorithm_bytes_per_s=rate, bus_bytes_per_s=rate, correct=True,
            )
        )  # fmt: skip
    return NetworkProbe(
        n_nodes=n_nodes, collectives=tuple(points), absent=(), links=tuple(NodeLink(node=i, bytes_per_s=r) for i, r in enumerate(links))
    )


def stepped(at: LabPoint, ring: Ring) -> LabPoint:
    """The point as it would be measured on a ring."""
    return replace(at, step_s=sum(step_parts_s(OwnWork(0.1, 0.2, 0.01), at, ring).values()))


TRUTH = Ring(2.1e6, 9e-4, {})


@pytest.mark.parametrize("sharding", [Sharding.NONE, Sharding.ZERO3])
def test_a_world_that_keeps_the_laws_is_predicted_from_two_hosts(network: LabNetwork, sharding: Sharding) -> None:
    alone, second, many = (stepped(point(n, sharding), TRUTH) for n in (1, 2, 16))
    told = forecast(many, alone, second, network, [probe(TRUTH)])
    blind = forecast(many, alone, None, network, [])
    assert told.step_s == pytest.approx(many.step_s, rel=0.03)
    assert abs(math.log(blind.step_s / many.step_s)) > abs(math.log(told.step_s / many.step_s))  # links carry less than they are sold for
    assert told.log_sd < 0.5 * blind.log_sd
    assert sum(told.parts_s.values()) == pytest.approx(told.step_s)


def test_nothing_that_was_measured_of_the_point_is_read(network: LabNetwork) -> None:
    alone, second, many = (stepped(point(n), TRUTH) for n in (1, 2, 8))
    told = forecast(many, alone, second, network, [probe(TRUTH)])
    assert told == forecast(replace(many, step_s=1e9, standard_error_s=1e9, n_steps=0), alone, second, network, [probe(TRUTH)])


def test_a_sick_link_is_found_and_paid_for_by_everybody(network: LabNetwork) -> None:
    alone, second, many = (stepped(point(n, Sharding.ZERO3), TRUTH) for n in (1, 2, 4))
    healthy = forecast(many, alone, second, network, [probe(TRUTH), probe(TRUTH, 4, (2e6, 2.1e6, 1.9e6, 2e6))])
    sick = forecast(many, alone, second, network, [probe(TRUTH), probe(TRUTH, 4, (2e6, 2.1e6, 1.9e6, 2e5))])
    assert sick.parts_s["exposed exchanges"] == pytest.approx(10 * healthy.parts_s["exposed exchanges"], rel=0.1)
    assert (sick_share(()), sick_share([NodeLink(node=i, bytes_per_s=r) for i, r in enumerate((1.0, 0.9, 1.1))])) == (1.0, 1.0)


def test_an_uplink_narrows_a_ring_only_beyond_a_leaf() -> None:
    lab = compose(["lab=scaling"]).lab
    assert lab is not None
    wide, narrow = lab.networks["fast"], lab.networks["oversubscribed"]
    alone, second, many = (stepped(point(n, Sharding.ZERO3), TRUTH) for n in (1, 2, 4))
    exposed = [forecast(many, alone, second, net, [probe(TRUTH)]).parts_s["exposed exchanges"] for net in (wide, narrow)]
    assert exposed[1] == pytest.approx(2 * exposed[0], rel=0.05)  # two hosts below an uplink of a quarter of what both send


def test_what_is_promised_is_what_comes_of_a_world_as_expected(network: LabNetwork) -> None:
    expected = Ring(network.cluster.scale_out.bytes_per_s.value, 3e-4, {})
    alone, second, many = (stepped(point(n), expected) for n in (1, 2, 8))
    promised = promised_log_sd(many, alone, second, network, PROBED)
    assert forecast(many, alone, second, network, [probe(expected)]).log_sd == pytest.approx(promised, rel=0.05)
    assert promised < forecast(many, alone, None, network, []).log_sd


def test_seeing_nothing_leaves_the_prior() -> None:
    belief = believe([])
    assert not belief.center.any()
    assert np.linalg.eigvalsh(belief.covariance).min() > 0


def test_the_rules_that_ask_for_no_model() -> None:
    alone, second, many = (replace(point(n), step_s=s) for n, s in ((1, 1.0), (2, 1.2), (8, 0.0)))
    # 64 sequences on any number of hosts here: linear is an eighth; throughput grew by 1 / 1.2 in the first doubling
    assert linear_s(alone, many) == pytest.approx(0.125)
    assert doubling_s(alone, second, many) == pytest.approx(1.2**3)
