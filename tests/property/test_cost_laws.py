"""Laws of the cost model: whatever the plan, the model, the machine and the stack."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.config.compose import conf_dir, load_prior
from bench.cost.calibrate import Calibration
from bench.cost.coefficients import Coefficients, coefficients_of, log_values
from bench.cost.collectives import excess, soft_maximum
from bench.cost.extrapolate import predict
from bench.cost.layout import RECOMPUTES, Layout, batch_of, plan_of
from bench.cost.memory import memory, stage_bytes
from bench.cost.posterior import condition
from bench.cost.search import best_plan
from bench.cost.step_time import log_device_s_per_token, step_parts, step_s
from bench.cost.workload import workload_of
from bench.facts.figure import Figure
from bench.facts.hardware import Cluster, Precision
from bench.facts.model import ModelShape
from bench.facts.plan import Recompute, Sharding
from bench.facts.prediction import Part
from bench.facts.stack import Stack, StackFamily
from tests.round_numbers import CLUSTER, DEVICE, SMALL, STACK, TARGET, figure, layout

PUBLISHED = load_prior(conf_dir() / "prior" / "published.yaml")
CENTER = log_values(PUBLISHED)
EXPERTS = replace(SMALL, name="experts", d_ff=0, n_experts=8, experts_top_k=2, d_ff_expert=2730)
FASTER = st.floats(1.0, 10.0)
STACKS = st.sampled_from([STACK, replace(STACK, balanced_stages=True, hides_zero1=False, family=StackFamily.TORCH, gradient_bytes=2)])


@st.composite
def stacks_coefficients(draw: st.DrawFn) -> Coefficients:
    """The fitted coefficients of a stack: each up to a third off, in a direction of its own."""
    seed = draw(st.integers(0, 2**16))
    return coefficients_of(CENTER + np.random.default_rng(seed).uniform(-0.3, 0.3, len(CENTER)))


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


def step(shape: ModelShape, plan: Layout, cluster: Cluster, stack: Stack, by: Coefficients) -> float:
    return float(step_s(workload_of(shape, plan, cluster, stack), by))


def times(given_figure: Figure, factor: float) -> Figure:
    return replace(given_figure, value=given_figure.value * factor)


def not_slower(fast: float, slow: float) -> bool:
    return fast <= slow * (1 + 1e-9)


@given(SHAPES, layouts(), STACKS, stacks_coefficients(), st.tuples(FASTER, FASTER))
def test_faster_device_is_never_slower(
    shape: ModelShape, plan: Layout, stack: Stack, by: Coefficients, factors: tuple[float, float]
) -> None:
    compute, memory_factor = factors
    rates = {Precision.BF16: figure(1e15 * compute)}
    fast = replace(
        DEVICE, peak_flops_per_s=rates, matmul_flops_per_s=rates, memory_bytes_per_s=times(DEVICE.memory_bytes_per_s, memory_factor)
    )
    assert not_slower(step(shape, plan, replace(CLUSTER, device=fast), stack, by), step(shape, plan, CLUSTER, stack, by))


@given(SHAPES, layouts(), STACKS, stacks_coefficients(), st.tuples(FASTER, st.sampled_from(["scale_up", "scale_out"])))
def test_faster_link_is_never_slower(shape: ModelShape, plan: Layout, stack: Stack, by: Coefficients, faster: tuple[float, str]) -> None:
    factor, name = faster
    link = getattr(CLUSTER, name)
    fast = replace(CLUSTER, **{name: replace(link, bytes_per_s=times(link.bytes_per_s, factor))})
    assert not_slower(step(shape, plan, fast, stack, by), step(shape, plan, CLUSTER, stack, by))


@given(SHAPES, layouts(), STACKS, stacks_coefficients())
def test_every_part_is_time_and_they_sum_to_the_step(shape: ModelShape, plan: Layout, stack: Stack, by: Coefficients) -> None:
    work = workload_of(shape, plan, CLUSTER, stack)
    parts = step_parts(work, by)
    assert set(parts) == set(Part)
    assert all(value >= -1e-15 for value in parts.values())
    assert sum(float(value) for value in parts.values()) == pytest.approx(float(step_s(work, by)), rel=1e-12)


@given(SHAPES, layouts(), st.integers(1, 5))
def test_more_devices_at_fixed_work_never_raise_the_compute_term(shape: ModelShape, plan: Layout, doublings: int) -> None:
    by, factor = coefficients_of(CENTER), 2.0**doublings
    wide = replace(plan, dp=plan.dp * factor, n_micro=plan.n_micro / factor)
    few, many = (step_parts(workload_of(shape, one, CLUSTER, STACK), by)[Part.COMPUTE] for one in (plan, wide))
    assert float(many) <= float(few) * (1 + 1e-12)


@settings(deadline=None, max_examples=25)  # one prediction asks for advice, a search of five runs
@given(SHAPES, layouts(), STACKS)
def test_percentiles_are_in_order_and_parts_add_up(shape: ModelShape, plan: Layout, stack: Stack) -> None:
    calibration = Calibration(posterior=condition(PUBLISHED, None), told=(), not_told=())
    found = predict(replace(TARGET, model=shape), CLUSTER, calibration, stack=stack, layout=plan, rental=None)
    assert found.step_s.p10 < found.step_s.p50 < found.step_s.p90
    assert sum(part.time_s for part in found.parts) == pytest.approx(found.step_s.p50, rel=1e-12)


@given(SHAPES, layouts(), st.floats(1e9, 1e12), FASTER)
def test_more_memory_never_stops_a_plan_from_fitting(shape: ModelShape, plan: Layout, room_bytes: float, factor: float) -> None:
    small = memory(shape, plan_of(plan), batch_of(plan), replace(DEVICE, memory_bytes=figure(room_bytes)))
    large = memory(shape, plan_of(plan), batch_of(plan), replace(DEVICE, memory_bytes=figure(room_bytes * factor)))
    assert large.fits or not small.fits


@given(SHAPES, layouts(), STACKS, stacks_coefficients())
def test_recomputing_never_takes_more_memory_nor_less_time(shape: ModelShape, plan: Layout, stack: Stack, by: Coefficients) -> None:
    kept, again = (replace(plan, recompute=np.asarray(float(RECOMPUTES.index(much)))) for much in (Recompute.NONE, Recompute.FULL))
    assert stage_bytes(shape, again)[1] <= stage_bytes(shape, kept)[1]
    assert not_slower(step(shape, kept, CLUSTER, stack, by), step(shape, again, CLUSTER, stack, by))


@given(SHAPES, layouts())
def test_sharding_more_never_takes_more_memory(shape: ModelShape, plan: Layout) -> None:
    by_sharding = [float(stage_bytes(shape, replace(plan, sharding=np.asarray(float(i))))[0]) for i in range(3)]
    assert by_sharding == sorted(by_sharding, reverse=True)


@given(SHAPES, layouts(), stacks_coefficients(), st.integers(2, 50))
def test_throughput_of_many_rows_is_that_of_each(shape: ModelShape, plan: Layout, by: Coefficients, n: int) -> None:
    one = workload_of(shape, plan, CLUSTER, STACK)
    many = log_device_s_per_token(one.broadcast(n), by)
    assert many == pytest.approx([float(log_device_s_per_token(one, by))] * n, rel=1e-12)


@given(FASTER)
def test_best_plan_of_a_faster_device_is_never_slower(factor: float) -> None:
    rates = {Precision.BF16: figure(1e15 * factor)}
    fast = replace(CLUSTER, device=replace(DEVICE, peak_flops_per_s=rates, matmul_flops_per_s=rates))
    posterior = condition(PUBLISHED, None)

    def per_sequence(cluster: Cluster) -> float:
        plan = best_plan(TARGET, cluster, STACK, posterior)
        return (
            step(TARGET.model, plan, cluster, STACK, coefficients_of(CENTER))
            * float(plan.n_devices)
            / float(plan.n_devices * plan.sequences)
        )

    assert per_sequence(fast) <= per_sequence(CLUSTER) * (1 + 1e-9)


TIMES = st.floats(1e-9, 1e3)


@given(TIMES, TIMES, TIMES)
def test_the_soft_maximum_grows_with_both_and_lies_between_maximum_and_sum(first: float, second: float, more: float) -> None:
    found = float(soft_maximum(np.asarray(first), np.asarray(second)))
    assert max(first, second) * (1 - 1e-12) <= found <= (first + second) * (1 + 1e-12) + 1e-29
    assert found <= float(soft_maximum(np.asarray(first + more), np.asarray(second))) * (1 + 1e-12)
    assert -1e-9 <= float(excess(np.asarray(first), np.asarray(second))) <= first * (1 + 1e-12) + 1e-29
