"""Scaling curves: what they hold fixed, where they bend, and what they cost."""

from dataclasses import replace
from time import process_time

import pytest

from bench.config.compose import compose
from bench.cost.extrapolate import project
from bench.cost.posterior import condition
from bench.cost.scaling import device_ladder, knee_of, scaling_curves
from bench.errors import InvalidFact
from bench.facts.figure import Interval
from bench.facts.hardware import Cluster
from bench.facts.plan import ParallelPlan
from bench.facts.scaling import ScalingCurve, ScalingKind, ScalingPoint
from bench.report.markdown import markdown_table
from bench.report.plan_tables import scaling_table
from tests.round_numbers import CALIBRATION, CLUSTER, DEVICE, STACK, TARGET, figure


def curves(cluster: Cluster = CLUSTER, largest: float = 32) -> tuple[ScalingCurve, ScalingCurve]:
    weak, strong = scaling_curves(replace(TARGET, max_global_batch_size=figure(largest)), cluster, STACK, CALIBRATION.posterior)
    return weak, strong


def point(n_devices: int, efficiency: float) -> ScalingPoint:
    plan = ParallelPlan(data_parallel_size=n_devices)
    speed = Interval(p10=1.0, p50=1.0, p90=1.0)
    return ScalingPoint(n_devices=n_devices, plan=plan, global_batch_size=n_devices, tokens_per_s=speed, efficiency_fraction=efficiency)


@pytest.mark.parametrize(("n_nodes", "counts"), [(1, (8,)), (2, (8, 16)), (3, (8, 16, 24)), (8, (8, 16, 32, 64))])
def test_the_ladder_doubles_from_one_node_to_the_whole_cluster(n_nodes: int, counts: tuple[int, ...]) -> None:
    assert device_ladder(replace(CLUSTER, n_nodes=n_nodes)) == counts


def test_weak_scaling_grows_the_batch_to_the_ceiling_and_strong_keeps_it() -> None:
    weak, strong = curves()
    assert (weak.kind, strong.kind) == (ScalingKind.WEAK, ScalingKind.STRONG)
    # one sequence per device, 32 at most
    assert [p.global_batch_size for p in weak.points] == [8, 16, 32, 32]
    assert [p.global_batch_size for p in strong.points] == [32, 32, 32, 32]
    assert "up to the ceiling of 32 sequences (32,768 tokens) per step on 32 devices" in weak.ceiling
    assert "beyond the cluster" in curves(largest=64)[0].ceiling


def test_the_last_point_is_the_projection() -> None:
    target = replace(TARGET, max_global_batch_size=figure(1024))
    _, strong = scaling_curves(target, CLUSTER, STACK, CALIBRATION.posterior)
    projected = project(target, CLUSTER, CALIBRATION, STACK, None)
    assert strong.points[-1].plan == projected.plan
    assert strong.points[-1].tokens_per_s.p50 == pytest.approx(projected.tokens_per_s.p50)
    assert strong.points[-1].tokens_per_s.p10 == pytest.approx(projected.tokens_per_s.p10)


def test_links_that_cost_nothing_scale_without_a_knee() -> None:
    endless = replace(CLUSTER.scale_out, bytes_per_s=figure(1e18), latency_s=figure(0))
    weak, _ = curves(replace(CLUSTER, scale_out=endless, scale_up=endless), largest=1024)
    assert weak.knee_devices == 64
    assert all(p.efficiency_fraction == pytest.approx(1, abs=0.05) for p in weak.points)
    assert "never falls below 80%" in weak.knee


def test_the_knee_is_before_the_first_point_below_the_line() -> None:
    assert knee_of([point(8, 1.0), point(16, 0.9), point(32, 0.79), point(64, 0.85)], 0.8) == 16
    assert knee_of([point(8, 1.0), point(16, 0.8)], 0.8) == 16


def test_counts_that_cannot_hold_the_model_are_left_out() -> None:
    small = replace(CLUSTER, device=replace(DEVICE, memory_bytes=figure(3.2e9)))
    kept = scaling_curves(TARGET, small, STACK, CALIBRATION.posterior)
    for curve in kept:
        assert curve.points[0].n_devices >= 8
    assert scaling_curves(TARGET, replace(CLUSTER, device=replace(DEVICE, memory_bytes=figure(1e6))), STACK, CALIBRATION.posterior) == ()


def test_counts_that_do_not_ascend_are_refused() -> None:
    weak, _ = curves()
    with pytest.raises(InvalidFact, match="must ascend"):
        replace(weak, points=weak.points[::-1])


def test_the_table_shows_every_point_with_knee_and_ceiling() -> None:
    weak, _ = curves()
    text = markdown_table(scaling_table(weak))
    assert text.count("dp") >= len(weak.points)
    assert "Knee: " in text
    assert "Ceiling: " in text


def test_the_curves_of_a_hundred_thousand_devices_take_less_than_a_second() -> None:
    config = compose(["target=grok1_314b", "cluster=memphis_100k_h100"])
    posterior = condition(config.prior, None)
    times = []
    for _ in range(3):  # of this process alone: others share the machine
        started = process_time()
        weak, strong = scaling_curves(config.target, config.clusters[0], config.stack, posterior)
        times.append(process_time() - started)
    assert min(times) < 1.0
    assert weak.points[-1].n_devices == strong.points[-1].n_devices == 100_000
    assert weak.points[0].n_devices > 8  # 314 billion parameters
