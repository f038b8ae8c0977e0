"""Laws of a decision: finite or stated, bills that add up, and nothing better for being worse."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.codec import decode_text, encode, encode_text
from bench.cost.assumptions import assumptions_of
from bench.cost.decision import crossing, margin_days, option_forecast, rent_break_even, tornado
from bench.cost.extrapolate import project
from bench.cost.option import Entry, failures_per_day, goodput_of, paced
from bench.deciding import measured_w
from bench.facts.breakdown import Telemetry
from bench.facts.decision import OptionForecast
from bench.facts.figure import Interval, Provenance
from bench.facts.prediction import Prediction
from bench.facts.reliability import RecoveryKind, Reliability
from bench.facts.scenario import Capacity, Group, Option, Range, Scenario
from tests.round_numbers import CALIBRATION, CLUSTER, DEVICE, STACK, TARGET, measurement
from tests.unit.test_goodput import figure, parameter, recovery
from tests.unit.test_money import purchase, rental
from tests.unit.test_power import site

RATES = Reliability(
    name="round",
    node_failures_per_day={"one": figure(0.01), "two": figure(0.02)},
    job_failures_per_day={"one": figure(1.0)},
    vendor_factor=parameter(1.0, 0.1),
    slow_fraction=parameter(0.01),
)


@cache
def prediction() -> Prediction:
    return project(TARGET, CLUSTER, CALIBRATION, STACK, None)


def days(p50: float, spread: float = 0.0) -> Range:
    return Range(p10=p50 * (1 - spread), p50=p50, p90=p50 * (1 + spread), provenance=Provenance.ASSUMED, source="round number")


def entry(name: str, start: float = 0.0, ramp: float = 0.0, rented: bool = True, **changes: Any) -> Entry:
    given_: dict[str, Any] = {
        "name": name,
        "claim": "round number",
        "reading": (),
        "groups": {"all": Group(cluster=CLUSTER, reliability=RATES)},
        "site": site(),
        "recovery": recovery(RecoveryKind.ASYNC),
        "start_day": days(start),
        "ramp_days": days(ramp),
        "rental": rental() if rented else None,
        "purchase": None if rented else purchase(server_life_s=figure(1e8), building_life_s=figure(4e8)),
        "wide_area": None,
    }
    return Entry(
        option=Option(**(given_ | changes)),
        target=TARGET,
        predictions=(prediction(),),
        rated_w=(DEVICE.power_w.value,),
        measured_w=(None,),
        common_share=0.5,
    )


def scenario(*entries: Entry, work_flops: float = 1e20) -> Scenario:
    return Scenario(
        name="round",
        options={e.option.name: e.option for e in entries},
        first=None,
        second=None,
        work_flops=figure(work_flops),
        milestones_flops={"half": figure(work_flops / 2)},
        horizon_days=100,
        n_samples=100,
        seed=0,
    )


def finite(node: Any) -> bool:
    if isinstance(node, dict):
        return all(finite(child) for child in node.values())
    if isinstance(node, list):
        return all(finite(child) for child in node)
    return not isinstance(node, float) or math.isfinite(node)


ANY = {
    "cap": st.none() | st.floats(1, 1e9),
    "rate": st.floats(1e-5, 1e3),
    "start": st.floats(0, 1e4),
    "ramp": st.floats(0, 1e4),
    "price": st.floats(1e-3, 1e4),
    "storage": st.floats(1e3, 1e15),
    "work": st.floats(1e10, 1e30),
    "rented": st.booleans(),
    "kind": st.sampled_from(list(RecoveryKind)),
}


@settings(deadline=None, max_examples=60)
@given(**ANY)
def test_an_option_is_finite_adds_up_and_survives_json(
    *,
    cap: float | None,
    rate: float,
    start: float,
    ramp: float,
    price: float,
    storage: float,
    work: float,
    rented: bool,
    kind: RecoveryKind,
) -> None:
    rates = replace(RATES, node_failures_per_day={"one": figure(rate)})
    changed = entry(
        "a",
        start,
        ramp,
        rented,
        groups={"all": Group(cluster=CLUSTER, reliability=rates)},
        site=site(power_cap_w=None if cap is None else figure(cap)),
        recovery=recovery(kind, storage_bytes_per_s=figure(storage)),
        rental=rental(usd_per_device_hour=parameter(price)) if rented else None,
    )
    done = option_forecast(changed, scenario(changed, work_flops=work), {"time to restart": np.linspace(-2, 2, 100)}, None)
    assert finite(encode(done))
    assert decode_text(OptionForecast, encode_text(done)) == done
    if done.bill is not None:
        assert done.bill.total_cents == sum(part.cents for part in done.bill.parts)
    if done.infeasible:
        assert done.bill is None
        assert done.work_day is None


def test_every_assumption_is_told_with_its_source() -> None:
    found = {a.path: a for a in assumptions_of(entry("a").option)}
    assert all(a.source for a in found.values())
    assert all(a.low <= a.middle <= a.high for a in found.values())
    pue = found["scenario.options.a.site.pue"]
    assert (pue.middle, pue.high) == (1.2, pytest.approx(1.2 * math.exp(0.1 * 1.28155)))
    assert "scenario.options.a.groups.all.reliability.node_failures_per_day.two" in found


def test_power_is_measured_only_by_a_run_on_the_same_device() -> None:
    told = Telemetry(devices=(), power_w=900.0, energy_j=None, energy_j_per_token=None)
    run = replace(measurement(1000.0), telemetry=told, world_size=2)
    assert measured_w(CLUSTER, run) == 450.0
    assert measured_w(CLUSTER, replace(run, device_name="Round 2")) is None
    assert measured_w(CLUSTER, replace(run, telemetry=None)) is None


def test_it_is_told_where_the_closed_form_is_not_valid() -> None:
    one = entry("a")
    whole, exact = scenario(one), goodput_of(one).effective_fraction
    near, far = (Interval(p10=x, p50=x, p90=x) for x in (exact * 1.005, exact * 0.9))
    assert not option_forecast(one, whole, {}, near).notes
    assert "closed form is not valid here" in option_forecast(one, whole, {}, far).notes[0]


def test_an_option_of_double_speed_crosses_when_it_has_caught_up() -> None:
    # as fast as the other and two of its kind: from day 10 on twice the work, even at day 20
    first = entry("a")
    twice = replace(entry("b", start=10), predictions=(prediction(), prediction()), rated_w=(1000.0, 1000.0), measured_w=(None, None))
    found = crossing(first, twice, scenario(first, twice), {})
    assert found.day is not None
    assert abs(found.day.p50 - 20) < 0.3
    assert found.crossing_fraction == 1


def test_a_tornado_is_ordered_and_moves_only_what_it_names() -> None:
    first, second = entry("a"), entry("b", start=10, ramp=5)
    found = tornado(first, second, scenario(first, second))
    assert [s.swing_days for s in found] == sorted((s.swing_days for s in found), reverse=True)
    by_name = {s.assumption: s for s in found}
    assert by_name["start of a"].swing_days == 0  # a certain date
    assert by_name["speed of a"].low < by_name["speed of a"].middle < by_name["speed of a"].high


def test_the_margin_of_equal_options_is_the_difference_of_their_starts() -> None:
    first, second = entry("a", start=3), entry("b", start=10)
    assert abs(float(margin_days(first, second, scenario(first, second), {})[0]) + 7) < 1e-9


def test_renting_at_the_break_even_price_costs_what_the_other_does() -> None:
    first, second = entry("a"), entry("b", rented=False)
    whole = scenario(first, second)
    rented, built = (option_forecast(e, whole, {}, None) for e in (first, second))
    found = rent_break_even(rented, built, 2.5)
    assert found is not None
    assert built.bill is not None
    assert abs(found.against_use_usd_per_device_hour * rented.device_hours * 100 - built.bill.total_cents) < 1
    assert found.against_cash_usd_per_device_hour > found.against_use_usd_per_device_hour


def test_a_vendor_that_fails_twice_as_often_adds_its_share() -> None:
    # two groups of 8 nodes; 0.0141 a node-day at the geometric mean of 0.01 and 0.02, and 1 of the job
    worse = replace(RATES, vendor_factor=parameter(2.0))
    groups = {"one": Group(cluster=CLUSTER, reliability=RATES), "other": Group(cluster=CLUSTER, reliability=worse)}
    nodes, job = failures_per_day(entry("a", groups=groups), {})
    assert float(nodes[0]) == pytest.approx((8 + 2 * 8) * math.sqrt(0.01 * 0.02))
    assert float(job[0]) == pytest.approx(1.0)


def test_losses_of_spot_capacity_come_on_top() -> None:
    # 0.01 an hour of each of 8 nodes are 1.92 a day
    spot = rental(capacity=Capacity.SPOT, losses_per_node_hour=parameter(0.01), notice_s=figure(120))
    with_spot, without = (failures_per_day(entry("a", rental=r), {})[0] for r in (spot, rental()))
    assert float(with_spot[0] - without[0]) == pytest.approx(1.92)


def test_notice_saves_the_time_to_notice() -> None:
    # a copy is safe long before two minutes are over: only the rest of the interruptions waits for the alarm
    given_ = {"capacity": Capacity.SPOT, "losses_per_node_hour": parameter(0.01)}
    fast = recovery(RecoveryKind.ASYNC, storage_bytes_per_s=figure(1e12))
    told, untold = (goodput_of(entry("a", recovery=fast, rental=rental(notice_s=figure(s), **given_))) for s in (120, 0.001))
    assert told.downtime_s < untold.downtime_s
    assert untold.downtime_s == pytest.approx(300)


@settings(deadline=None, max_examples=30)
@given(rate=st.floats(1e-3, 10), worse=st.floats(1, 100))
def test_more_failures_never_train_more(rate: float, worse: float) -> None:
    paces = []
    for value in (rate, rate * worse):
        rates = replace(RATES, node_failures_per_day={"one": figure(value)})
        paces.append(float(paced(entry("a", groups={"all": Group(cluster=CLUSTER, reliability=rates)}), {})[0][0]))
    assert paces[1] <= paces[0] * (1 + 1e-9)
