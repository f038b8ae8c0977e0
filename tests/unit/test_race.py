"""The calendar by hand, and its laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cost.draws import log_normal, log_two_sided, two_sided
from bench.cost.race import crossing_day, day_of, full_days
from bench.cost.sites import crossed
from bench.facts.figure import Interval, Provenance
from bench.facts.scenario import Range, SiteMode, WideArea
from tests.unit.test_goodput import figure, parameter

NOW = (np.array([1.0]), np.array([0.0]), np.array([0.0]))


def pace(per_day: float, start: float, ramp: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.array([per_day]), np.array([start]), np.array([ramp])


def test_full_days_by_hand() -> None:
    # start day 10, ramp of 20: by day 20 a quarter of the ramp's ten days, by day 30 ten, by day 40 twenty
    days = [float(full_days(np.array(day), np.array(10.0), np.array(20.0))) for day in (5.0, 20.0, 30.0, 40.0)]
    assert days == [0, 2.5, 10, 20]


def test_day_of_by_hand() -> None:
    # on the ramp: 2.5 full days at day 20; beyond it: 20 at day 40
    assert day_of(np.array(2.5), *pace(1, 10, 20))[0] == pytest.approx(20)
    assert day_of(np.array(20.0), *pace(1, 10, 20))[0] == pytest.approx(40)


def test_nothing_is_never_done() -> None:
    assert np.isinf(day_of(np.array(1.0), *pace(0, 0, 0))).all()


def test_crossing_by_hand() -> None:
    # 2 a day from day 10 against 1 a day from day 0: 2 (t - 10) = t at day 20
    assert crossing_day(NOW, pace(2, 10, 0), 100)[0] == pytest.approx(20, abs=1e-3)


def test_the_slower_never_crosses() -> None:
    assert np.isinf(crossing_day(NOW, pace(0.5, 10, 0), 100)).all()
    assert np.isinf(crossing_day(NOW, pace(2, 99, 0), 100)).all()


@given(work=st.floats(1e-3, 1e4), rate=st.floats(1e-2, 1e2), start=st.floats(0, 500), ramp=st.floats(0, 500))
def test_the_day_of_an_amount_is_when_it_is_done(work: float, rate: float, start: float, ramp: float) -> None:
    day = day_of(np.array(work), *pace(rate, start, ramp))
    done = rate * full_days(day, np.array(start), np.array(ramp))
    # the day is a sum: what it has in digits beyond the start is what the work has
    assert done[0] == pytest.approx(work, rel=1e-6, abs=rate * (start + ramp + 1) * 1e-7)


@given(rate=st.floats(0.1, 10), faster=st.floats(1, 10), start=st.floats(0, 100))
def test_faster_is_never_later(rate: float, faster: float, start: float) -> None:
    work = np.array(50.0)
    assert day_of(work, *pace(rate * faster, start, 30))[0] <= day_of(work, *pace(rate, start, 30))[0]


def test_scores_meet_the_percentiles() -> None:
    given_ = Range(p10=1, p50=2, p90=6, provenance=Provenance.ASSUMED, source="round number")
    ends = np.array([-1.2815515655446004, 0, 1.2815515655446004])
    assert two_sided(given_, ends) == pytest.approx([1, 2, 6])
    assert two_sided(given_, np.array([-10.0])) == pytest.approx([0])
    assert log_two_sided(Interval(p10=1, p50=2, p90=6), ends) == pytest.approx([1, 2, 6])
    assert log_normal(parameter(3, 0.0), ends) == pytest.approx([3, 3, 3])


def line(mode: SiteMode) -> WideArea:
    return WideArea(
        n_sites=2,
        bytes_per_s=figure(1e9),
        latency_s=figure(0.01),
        mode=mode,
        local_steps=100,
        bytes_per_parameter=figure(2),
        hidden_fraction=figure(0),
        token_penalty=parameter(1.25),
    )


def test_an_exchange_between_two_sites_by_hand() -> None:
    # 1e9 parameters of 2 bytes, 2 * (1/2) of them over 1e9 B/s: 2 s, and two latencies
    both = crossed(line(SiteMode.SYNCHRONOUS), 1e9, step_s=2.02)
    assert both.exchange_s == pytest.approx(2.02)
    assert both.speed_fraction == pytest.approx(0.5)
    assert not both.independent
    # once in a hundred steps: 0.0202 s a step, and a quarter more tokens
    rare = crossed(line(SiteMode.LOCAL_STEPS), 1e9, step_s=2.02)
    assert rare.speed_fraction == pytest.approx(1 / 1.01 / 1.25)
    assert rare.independent
