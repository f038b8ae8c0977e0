"""Power, caps and water by hand."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cost.power import Load, device_w, facility_w, idle_w, power, under_cap
from bench.errors import InvalidFact
from bench.facts.figure import Figure, Parameter, Provenance
from bench.facts.site import CapAnswer, Cooling, Site
from tests.unit.test_goodput import figure, parameter


def site(**changes: Any) -> Site:
    given_: dict[str, Any] = {
        "name": "round",
        "claim": "round number",
        "compute_fraction": figure(1.0),
        "waiting_fraction": figure(0.4),
        "idle_fraction": figure(0.1),
        "node_overhead_w": parameter(500),
        "network_fraction": parameter(0.1),
        "pue": parameter(1.2),
        "cooling": Cooling.LIQUID,
        "water_m3_per_j": parameter(1e-9),
        "power_cap_w": None,
        "electricity_usd_per_j": parameter(2e-8),
    }
    return Site(**(given_ | changes))


LOAD = Load(n_devices=100, rated_w=1000, busy_fraction=0.8)


def test_a_device_draws_by_what_it_does() -> None:
    # 0.8 of 1,000 W and 0.2 of 400 W; at half the clock computing takes 100 + 900 / 8 = 212.5 W, and waiting no more than that
    assert device_w(site(), 1000, 0.8) == pytest.approx(880)
    assert device_w(site(), 1000, 0.8, clock=0.5) == pytest.approx(212.5)


def test_the_building_adds_nodes_network_and_cooling() -> None:
    # (1,000 + 500) * 1.1 * 1.2 = 1,980 W per device at the peak; idle (100 + 500) * 1.32 = 792
    assert facility_w(site(), [LOAD], busy=1.0) == pytest.approx(198_000)
    assert idle_w(site(), [LOAD]) == pytest.approx(79_200)
    # swing: 600 W of each device
    assert power(site(), [LOAD], 1.0).swing_w == pytest.approx(100 * 600 * 1.32)


def test_average_lies_between_working_and_waiting() -> None:
    # working (880 + 500) * 1.32 = 1,821.6; waiting (400 + 500) * 1.32 = 1,188; three quarters of the time working
    found = power(site(), [LOAD], 0.75)
    assert found.average_w == pytest.approx(100 * (0.75 * 1821.6 + 0.25 * 1188))
    assert found.water_m3_per_day == pytest.approx(found.average_w * 86400 * 1e-9)


def test_a_measured_power_replaces_the_model() -> None:
    measured = replace(LOAD, measured_w=700.0)
    assert power(site(), [measured], 1.0).average_w == pytest.approx(100 * 1200 * 1.32)


def test_a_cap_lowers_clocks_by_the_third_root() -> None:
    # half of what lies between idle and peak is left: the clock is 0.5^(1/3) = 0.7937, speed 1 / (0.8 / 0.7937 + 0.2)
    capped = site(power_cap_w=figure((198_000 + 79_200) / 2))
    found = power(capped, [LOAD], 1.0)
    assert found.cap_answer is CapAnswer.CLOCKS
    assert found.clock_fraction == pytest.approx(0.5 ** (1 / 3))
    assert found.speed_fraction == pytest.approx(1 / (0.8 / 0.5 ** (1 / 3) + 0.2))
    assert found.peak_w == pytest.approx(capped.power_cap_w.value if capped.power_cap_w else 0)


def test_a_low_cap_switches_devices_off() -> None:
    # 3 % above idle: clocks would have to fall to a third
    found = power(site(power_cap_w=figure(79_200 + 0.03 * 118_800)), [LOAD], 1.0)
    assert found.cap_answer is CapAnswer.DEVICES
    assert found.n_devices_powered == int(100 * (79_200 + 0.03 * 118_800) / 198_000)
    assert found.peak_w <= 79_200 + 0.03 * 118_800


def test_a_cap_below_idle_is_infeasible_and_says_what_would_do() -> None:
    found = power(site(power_cap_w=figure(50_000)), [LOAD], 1.0)
    assert "below the 0.0792 MW that 100 devices draw idle" in found.infeasible
    assert "at most 63 devices" in found.infeasible
    assert found.speed_fraction == 0


@given(cap=st.floats(1, 1e6), n=st.integers(1, 1000), busy=st.floats(0, 1))
def test_no_cap_is_exceeded_and_none_makes_faster(cap: float, n: int, busy: float) -> None:
    load = Load(n_devices=n, rated_w=1000, busy_fraction=busy)
    capped = site(power_cap_w=figure(cap))
    found = power(capped, [load], 0.9)
    assert 0 <= found.speed_fraction <= 1
    assert found.average_w <= found.peak_w * (1 + 1e-9)
    if not found.infeasible:
        assert found.peak_w <= max(cap, 0) * (1 + 1e-9)


def test_without_a_cap_nothing_changes() -> None:
    assert under_cap(site(), [LOAD]) == (CapAnswer.NONE, 1.0, 1.0, "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pue": parameter(0.9)}, "pue 0.9 must be at least 1"),
        ({"power_cap_w": figure(-1)}, "power_cap_w -1 must be above 0"),
        ({"idle_fraction": figure(0.5)}, "must ascend"),
    ],
)
def test_a_site_that_cannot_be_is_refused(changes: dict[str, Figure | Parameter], words: str) -> None:
    with pytest.raises(InvalidFact, match=words):
        site(**changes)


def test_provenance_is_carried() -> None:
    assert site().pue.provenance is Provenance.ASSUMED
