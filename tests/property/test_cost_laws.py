"""Laws of the cost model: whatever the plan, the model and the machine."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cost.collectives import all_gather_s, all_reduce_s, all_to_all_s, reduce_scatter_s, send_s
from bench.cost.draws import draws, interval
from bench.cost.extrapolate import median_parts, step_interval
from bench.cost.layout import RECOMPUTES, Layout, batch_of, plan_of
from bench.cost.memory import memory, stage_bytes
from bench.cost.search import best_plan
from bench.cost.step_time import Job, step_parts, step_s
from bench.facts.figure import Figure
from bench.facts.hardware import Cluster, Precision
from bench.facts.model import ModelShape
from bench.facts.plan import Recompute, Sharding
from tests.round_numbers import CLUSTER, DEVICE, PRIOR, SMALL, TARGET, figure, layout, parameter, uncertain

PRIORS = uncertain(replace(PRIOR, step_spread_fraction=parameter(0.02), latency_growth_s=parameter(30e-6)), 0.2)
EXPERTS = replace(SMALL, name="experts", d_ff=0, n_experts=8, experts_top_k=2, d_ff_expert=2730)
FASTER = st.floats(1.0, 10.0)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    pp = draw(st.sampled_from([1, 2, 4, 8]))
    ep = draw(st.sampled_from([1, 2, 4, 8]))
    return layout(
        n_micro=pp * draw(st.integers(1, 4)),
        micro_batch_size=draw(st.sampled_from([1, 2, 4])),
        data_parallel_size=ep * draw(st.integers(1, 6)),
        tensor_parallel_size=draw(st.sampled_from([1, 2, 4, 8])),
        pipeline_parallel_size=pp,
        n_virtual_stages=draw(st.sampled_from([v for v in (1, 2, 4, 8) if pp > 1 or v == 1])),
        context_parallel_size=draw(st.sampled_from([1, 2])),
        expert_parallel_size=ep,
        sharding=draw(st.sampled_from(Sharding)),
        recompute=draw(st.sampled_from(Recompute)),
    )


SHAPES = st.sampled_from([SMALL, EXPERTS, replace(SMALL, name="tied", tied_embedding=True, vocab_size=50000)])


def steps(shape: ModelShape, plan: Layout, cluster: Cluster) -> list[float]:
    found = step_s(Job(shape=shape, layout=plan, cluster=cluster, draws=draws(PRIORS, cluster.device.name, int(plan.n_devices), 16)))
    return [float(seconds) for seconds in found]


def not_slower(fast: list[float], slow: list[float]) -> bool:
    return all(a <= b * (1 + 1e-12) for a, b in zip(fast, slow, strict=True))


def times(given_figure: Figure, factor: float) -> Figure:
    return replace(given_figure, value=given_figure.value * factor)


@given(SHAPES, layouts(), FASTER)
def test_faster_device_is_never_slower(shape: ModelShape, plan: Layout, factor: float) -> None:
    rates = {Precision.BF16: figure(1e15 * factor)}
    fast = replace(DEVICE, peak_flops_per_s=rates, matmul_flops_per_s=rates, memory_bytes_per_s=times(DEVICE.memory_bytes_per_s, factor))
    assert not_slower(steps(shape, plan, replace(CLUSTER, device=fast)), steps(shape, plan, CLUSTER))


@given(SHAPES, layouts(), FASTER, st.sampled_from(["scale_up", "scale_out"]))
def test_faster_link_is_never_slower(shape: ModelShape, plan: Layout, factor: float, name: str) -> None:
    link = getattr(CLUSTER, name)
    fast = replace(link, bytes_per_s=times(link.bytes_per_s, factor), latency_s=times(link.latency_s, 1 / factor))
    assert not_slower(steps(shape, plan, replace(CLUSTER, **{name: fast})), steps(shape, plan, CLUSTER))


@given(SHAPES, layouts())
def test_every_part_is_time_and_they_sum_to_the_step(shape: ModelShape, plan: Layout) -> None:
    job = Job(shape=shape, layout=plan, cluster=CLUSTER, draws=draws(PRIORS, "round", 64, 16))
    parts = step_parts(job)
    assert all(np.all(seconds >= 0) for seconds in parts.values())
    assert np.allclose(sum(parts.values()), step_s(job), rtol=1e-12)


@given(SHAPES, layouts())
def test_parts_of_a_prediction_sum_to_its_median_step(shape: ModelShape, plan: Layout) -> None:
    step = step_interval(shape, plan, CLUSTER, PRIORS)
    assert step.p10 <= step.p50 <= step.p90
    parts = median_parts(shape, plan, CLUSTER, PRIORS, step.p50)
    assert sum(part.time_s for part in parts) == pytest.approx(step.p50, rel=1e-12)


@given(SHAPES, layouts(), st.floats(1e9, 1e12), FASTER)
def test_more_memory_never_stops_a_plan_from_fitting(shape: ModelShape, plan: Layout, room_bytes: float, factor: float) -> None:
    small = memory(shape, plan_of(plan), batch_of(plan), replace(DEVICE, memory_bytes=figure(room_bytes)))
    large = memory(shape, plan_of(plan), batch_of(plan), replace(DEVICE, memory_bytes=figure(room_bytes * factor)))
    assert large.fits or not small.fits


@given(SHAPES, layouts())
def test_recomputing_never_takes_more_memory_nor_less_time(shape: ModelShape, plan: Layout) -> None:
    kept, again = (replace(plan, recompute=np.asarray(float(RECOMPUTES.index(much)))) for much in (Recompute.NONE, Recompute.FULL))
    assert stage_bytes(shape, again)[1] <= stage_bytes(shape, kept)[1]
    assert not_slower(steps(shape, kept, CLUSTER), steps(shape, again, CLUSTER))


@given(SHAPES, layouts())
def test_sharding_more_never_takes_more_memory(shape: ModelShape, plan: Layout) -> None:
    by_sharding = [float(stage_bytes(shape, replace(plan, sharding=np.asarray(float(i))))[0]) for i in range(3)]
    assert by_sharding == sorted(by_sharding, reverse=True)


@given(st.floats(0, 1e12), st.floats(1, 1e12), st.floats(0, 1))
def test_one_rank_is_free(size_bytes: float, bytes_per_s: float, latency_s: float) -> None:
    for collective in (all_gather_s, all_reduce_s, all_to_all_s, reduce_scatter_s, send_s):
        assert collective(np.asarray(size_bytes), np.asarray(1.0), np.asarray(bytes_per_s), np.asarray(latency_s)) == 0


@given(FASTER)
def test_best_plan_of_a_faster_device_is_never_slower(factor: float) -> None:
    rates = {Precision.BF16: figure(1e15 * factor)}
    fast = replace(CLUSTER, device=replace(DEVICE, peak_flops_per_s=rates, matmul_flops_per_s=rates))

    def per_sequence(cluster: Cluster) -> float:
        plan = best_plan(TARGET, cluster, PRIORS)
        job = Job(shape=TARGET.model, layout=plan, cluster=cluster, draws=draws(uncertain(PRIORS, 0.0), "round", 64, 1))
        return float(step_s(job)[0] / plan.sequences)

    assert per_sequence(fast) <= per_sequence(CLUSTER) * (1 + 1e-12)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1))
def test_percentiles_are_in_order(values: list[float]) -> None:
    found = interval(np.asarray(values))
    assert found.p10 <= found.p50 <= found.p90
