"""Goodput by hand: intervals, closed forms, and the simulation beside them."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cost.goodput import (
    Saving,
    effective_fraction,
    goodput,
    optimal_interval_s,
    pooled,
    replica_fraction,
    saving,
    small_loss_fraction,
    young_interval_s,
)
from bench.facts.figure import Figure, Parameter, Provenance
from bench.facts.reliability import Recovery, RecoveryKind
from bench.simulation import Hazard, simulated_fractions


def figure(value: float) -> Figure:
    return Figure(value=value, provenance=Provenance.ASSUMED, source="round number")


def parameter(value: float, log_sd: float = 0.1) -> Parameter:
    return Parameter(value=value, log_sd=log_sd, provenance=Provenance.ASSUMED, source="round number")


def recovery(kind: RecoveryKind, **changes: Any) -> Recovery:
    given_: dict[str, Any] = {
        "name": "round",
        "kind": kind,
        "bytes_per_parameter": figure(10),
        "storage_bytes_per_s": figure(1e9),
        "write_fraction": figure(0.5),
        "host_bytes_per_s": figure(1e8),
        "detection_s": parameter(100),
        "restart_s": parameter(200),
        "repair_s": parameter(3600),
        "spare_fraction": figure(0.1),
        "n_replicas": 10,
        "interval_s": None,
    }
    return Recovery(**(given_ | changes))


def effective(interval_s: float, blocking_s: float, downtime_s: float, mtbf_s: float, lag_s: float = 0.0) -> float:
    return float(effective_fraction(*(np.asarray(x) for x in (interval_s, blocking_s, downtime_s, mtbf_s, lag_s))))


def test_rates_of_two_sources_pool_to_their_geometric_mean() -> None:
    # logs of 1 and 4: mean log 2, sample deviation log(4) / sqrt 2, predictive times sqrt(1 + 1/2)
    middle, log_sd = pooled([figure(1), figure(4)])
    assert middle == pytest.approx(2)
    assert log_sd == pytest.approx(math.log(4) / math.sqrt(2) * math.sqrt(1.5))


def test_one_source_alone_is_a_factor_of_two() -> None:
    assert pooled([figure(3)]) == (pytest.approx(3), pytest.approx(math.log(2)))


def test_checkpoint_costs_by_kind() -> None:
    # 1e9 parameters of 10 bytes: 1e10 bytes, 10 s to storage at 1e9; of 100 devices each 1e8 bytes, 1 s to the host
    kinds = {kind: saving(recovery(kind), 1e9, 100) for kind in RecoveryKind}
    assert (kinds[RecoveryKind.STORAGE].blocking_s, kinds[RecoveryKind.STORAGE].lag_s) == (10, 0)
    assert (kinds[RecoveryKind.ASYNC].blocking_s, kinds[RecoveryKind.ASYNC].lag_s) == (1, 10)
    assert (kinds[RecoveryKind.MEMORY].blocking_s, kinds[RecoveryKind.MEMORY].lag_s) == (1, 1)


def test_optimum_is_youngs_where_checkpoints_are_short() -> None:
    assert optimal_interval_s(1e-4, 1e4) == pytest.approx(young_interval_s(1e-4, 1e4), rel=1e-3)


@given(blocking=st.floats(0.01, 1000), mtbf=st.floats(10, 1e6))
def test_no_other_interval_leaves_more_time(blocking: float, mtbf: float) -> None:
    best = optimal_interval_s(blocking, mtbf)
    kept = effective(best, blocking, 60, mtbf)
    assert kept >= effective(best * 1.05, blocking, 60, mtbf) * (1 - 1e-12)
    assert kept >= effective(best * 0.95, blocking, 60, mtbf) * (1 - 1e-12)


def test_effective_fraction_by_hand() -> None:
    # interval 90, blocking 10, mtbf 100, no downtime: 90 / (100 * (e^1 - 1)) = 0.5238
    assert effective(90, 10, 0, 100) == pytest.approx(0.9 / (math.e - 1))
    # a downtime of one mtbf: e times as long
    assert effective(90, 10, 100, 100) == pytest.approx(0.9 / (math.e - 1) / math.e)


def test_first_order_by_hand_and_its_end() -> None:
    # (1 - (50 + 100/2) / 1000) / (1 + 10/100) = 0.9 / 1.1
    assert small_loss_fraction(100, 10, 50, 1000) == pytest.approx(0.9 / 1.1)
    assert small_loss_fraction(100, 10, 500, 100) is None


def test_first_order_agrees_with_the_exact_form_where_losses_are_small() -> None:
    good = goodput(recovery(RecoveryKind.ASYNC), 1e9, 100, node_rates=[(10, 0.01)], job_failures_per_day=0.1)
    assert good.first_order_valid
    bad = goodput(recovery(RecoveryKind.STORAGE), 1e9, 100, node_rates=[(10_000, 0.01)], job_failures_per_day=0.1)
    assert not bad.first_order_valid


def test_replicas_lose_the_alarm_and_their_share_of_the_restart() -> None:
    # 10 s stall + 200 / 10 s every 300 s: 300 / 330
    assert float(replica_fraction(np.asarray(200.0), np.asarray(300.0), 10, np.asarray(10.0))) == pytest.approx(300 / 330)


@pytest.mark.parametrize(
    ("mtbf_s", "blocking_s", "downtime_s", "lag_s"),
    [
        (11_124, 20, 420, 0),  # 16,384 H100, blocking writes
        (1_800, 20, 300, 0),  # 100,000: losses are not small
        (600, 60, 300, 0),
        (3_000, 0.1, 300, 3),  # asynchronous
    ],
)
def test_simulation_and_exact_form_agree_within_one_percent(mtbf_s: float, blocking_s: float, downtime_s: float, lag_s: float) -> None:
    interval = max(optimal_interval_s(blocking_s, mtbf_s), lag_s)
    cost = Saving(checkpoint_bytes=1, blocking_s=blocking_s, lag_s=lag_s)
    hazard = Hazard(mtbf_s=mtbf_s, downtime_s=downtime_s, hardware_fraction=0.0, repair_s=1, n_spares=1)
    runs = simulated_fractions(interval, cost, hazard, wall_s=54 * 86400, n_samples=200, seed=1)
    assert runs.mean() == pytest.approx(effective(interval, blocking_s, downtime_s, mtbf_s, lag_s), rel=0.01)


def test_spares_that_run_out_cost_time_that_the_closed_form_leaves_out() -> None:
    cost = Saving(checkpoint_bytes=1, blocking_s=1, lag_s=0)

    def mean(n_spares: int) -> float:
        hazard = Hazard(mtbf_s=1000, downtime_s=10, hardware_fraction=1.0, repair_s=5000, n_spares=n_spares)
        return float(simulated_fractions(45, cost, hazard, wall_s=1e6, n_samples=50, seed=0).mean())

    # five nodes are away on average: none spare, about a sixth of the time is left; with many it is as if none were away
    assert mean(0) == pytest.approx(1000 / 6000, rel=0.1)
    assert mean(0) < mean(5) < mean(50)
    assert mean(50) == pytest.approx(effective(45, 1, 10, 1000), rel=0.01)


def test_a_simulation_repeats_itself() -> None:
    cost = Saving(checkpoint_bytes=1, blocking_s=1, lag_s=0)
    hazard = Hazard(mtbf_s=1000, downtime_s=10, hardware_fraction=0.5, repair_s=100, n_spares=1)
    first, again = (simulated_fractions(45, cost, hazard, wall_s=1e5, n_samples=10, seed=3) for _ in range(2))
    assert (first == again).all()


def test_a_checkpoint_longer_than_the_time_between_failures_is_infeasible() -> None:
    # 1e12 parameters of 10 bytes take 1e4 s; 10,000 nodes at 0.01 a day fail every 864 s
    good = goodput(recovery(RecoveryKind.STORAGE), 1e12, 100, node_rates=[(10_000, 0.01)], job_failures_per_day=0.001)
    assert "a checkpoint takes 10,000 s and failures come every 864 s" in good.infeasible
    assert 0 <= good.effective_fraction < 0.01


@given(
    nodes=st.integers(1, 200_000),
    rate=st.floats(1e-6, 10),
    parameters=st.floats(1e6, 1e15),
    kind=st.sampled_from(list(RecoveryKind)),
    restart=st.floats(0.1, 1e6),
)
def test_goodput_is_a_fraction_or_says_why_not(nodes: int, rate: float, parameters: float, kind: RecoveryKind, restart: float) -> None:
    how = recovery(kind, restart_s=parameter(restart))
    good = goodput(how, parameters, nodes * 8, node_rates=[(nodes, rate)], job_failures_per_day=1.0)
    assert 0 <= good.effective_fraction <= 1
    assert all(math.isfinite(x) for x in (good.interval_s, good.mtbf_s, good.blocking_s, good.lag_s))


@given(mtbf=st.floats(100, 1e6), worse=st.floats(1, 10))
def test_more_failures_never_leave_more_time(mtbf: float, worse: float) -> None:
    interval = optimal_interval_s(10, mtbf)
    assert effective(interval, 10, 60, mtbf / worse) <= effective(interval, 10, 60, mtbf) * (1 + 1e-12)
