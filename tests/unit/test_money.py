"""Money to the cent, and every conversion."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cost.money import bill, cents, electricity_part, hourly_usd, purchase_parts, rental_parts, use_parts
from bench.cost.power import evaporation_m3_per_j
from bench.errors import InvalidFact
from bench.facts.decision import Bill, CostPart
from bench.facts.scenario import Capacity, Purchase, Rental
from bench.report.quantities import dollars, households, litres_per_kwh, megawatt_hours, megawatts, us_gallons
from tests.unit.test_goodput import figure, parameter
from tests.unit.test_power import site


def rental(**changes: Any) -> Rental:
    given_: dict[str, Any] = {
        "capacity": Capacity.ON_DEMAND,
        "provider": "round",
        "as_of": "2026",
        "usd_per_device_hour": parameter(2.5),
        "losses_per_node_hour": None,
        "notice_s": None,
    }
    return Rental(**(given_ | changes))


def purchase(**changes: Any) -> Purchase:
    given_: dict[str, Any] = {
        "as_of": "2026",
        "server_usd": parameter(40_000),
        "network_usd": parameter(4_000),
        "building_usd": parameter(15_000),
        "server_life_s": figure(1000),
        "building_life_s": figure(4000),
        "residual_fraction": figure(0.1),
    }
    return Purchase(**(given_ | changes))


def test_rental_by_hand() -> None:
    # 1,000 device-hours at 2.50
    assert rental_parts(rental(), 1000)[0].cents == 250_000


def test_purchase_and_its_use_by_hand() -> None:
    assert [part.cents for part in purchase_parts(purchase(), 10)] == [40_000_000, 4_000_000, 15_000_000]
    # a quarter of the servers' life: 0.25 * 0.9 of servers, 0.25 of the network, a sixteenth of the building
    assert [part.cents for part in use_parts(purchase(), 10, 250)] == [9_000_000, 1_000_000, 937_500]


def test_nothing_wears_off_twice() -> None:
    assert [part.cents for part in use_parts(purchase(residual_fraction=figure(0)), 10, 1e9)] == [40_000_000, 4_000_000, 15_000_000]


def test_electricity_by_hand() -> None:
    # 1 MWh = 3.6e9 J at 2e-8 USD per joule: 72 USD
    assert electricity_part(site(), 3.6e9).cents == 7_200


def test_a_price_per_hour_by_hand() -> None:
    assert hourly_usd(250_000, 1000 * 3600) == pytest.approx(2.5)


@given(st.lists(st.integers(-(10**15), 10**15), max_size=20))
def test_a_bill_adds_up_to_the_cent(amounts: list[int]) -> None:
    parts = [CostPart(what="part", cents=amount, basis="drawn") for amount in amounts]
    assert bill(parts).total_cents == sum(amounts)


def test_a_wrong_total_is_refused() -> None:
    with pytest.raises(InvalidFact, match="not the sum"):
        Bill(parts=(CostPart(what="part", cents=1, basis="one"),), total_cents=2)


@pytest.mark.parametrize("usd", [float("nan"), float("inf")])
def test_money_is_never_nan(usd: float) -> None:
    with pytest.raises(InvalidFact, match="no sum of money"):
        cents(usd)


def test_a_negative_price_is_refused() -> None:
    with pytest.raises(InvalidFact, match=r"-1 must be above 0"):
        rental(usd_per_device_hour=parameter(-1))


def test_spot_capacity_needs_its_losses() -> None:
    with pytest.raises(InvalidFact, match="losses_per_node_hour"):
        rental(capacity=Capacity.SPOT)


def test_megawatts_are_not_megawatt_hours() -> None:
    # 150 MW over an hour are 150 MWh; over a day 3,600
    assert megawatts(150e6) == 150
    assert megawatt_hours(150e6 * 3600) == 150
    assert megawatt_hours(150e6 * 86400) == 3600


def test_gallons() -> None:
    # 1.3 million US gallons are 4,921 cubic metres
    assert us_gallons(4921.0) == pytest.approx(1.3e6, rel=1e-4)


def test_water_per_energy() -> None:
    # 4,921 m3 over 3,600 MWh: 1.367 L/kWh
    assert litres_per_kwh(4921.0 / (150e6 * 86400)) == pytest.approx(1.367, abs=0.001)


def test_households() -> None:
    # 150 MW over 100,000: 1.5 kW each, that is 13,149 kWh a year
    assert households(150e6, kwh_per_year=1.5 * 24 * 365.25) == pytest.approx(100_000)


def test_evaporation_by_hand() -> None:
    # 3.6e6 J / 2.43e6 J/kg = 1.4815 kg per kWh; with 4 cycles 4 / 3 of it
    assert litres_per_kwh(evaporation_m3_per_j(4)) == pytest.approx(1.4815 * 4 / 3, abs=1e-3)


@pytest.mark.parametrize(("amount", "text"), [(0, "$0.00"), (5, "$0.05"), (-12345, "-$123.45"), (10**12, "$10,000,000,000.00")])
def test_dollars(amount: int, text: str) -> None:
    assert dollars(amount) == text
