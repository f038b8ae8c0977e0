"""Laws of a run on more hosts."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cost.growth import OwnWork, Ring, buckets, exchange_s, exposed_reduction_s, message_s, pipeline_s, step_parts_s, units
from bench.cost.one_f_one_b import StageTimes, actions, schedule_s
from bench.cost.parameters import n_parameters
from bench.facts.lab import LabPoint
from bench.facts.model import ModelShape
from bench.facts.plan import BatchPlan, ParallelPlan, Sharding
from bench.facts.profile import Collective

SHAPE = ModelShape(
    name="m", n_layers=4, d_model=128, n_heads=4, n_kv_heads=2, head_dim=32, d_ff=384, vocab_size=1024, seq_len=128, tied_embedding=True
)
WORK = OwnWork(0.1, 0.2, 0.01)
FREE = Ring(math.inf, 0.0, {})
RING = Ring(2.5e6, 5e-4, {})


def point(n_hosts: int, sharding: Sharding = Sharding.NONE, pipeline: bool = False) -> LabPoint:
    plan = (
        ParallelPlan(data_parallel_size=1, pipeline_parallel_size=n_hosts)
        if pipeline
        else ParallelPlan(data_parallel_size=n_hosts, sharding=sharding)
    )
    batch = BatchPlan(micro_batch_size=4, global_batch_size=64, data_parallel_size=plan.data_parallel_size)
    return LabPoint(
        case="c", n_hosts=n_hosts, ranks_per_host=1, model=SHAPE, plan=plan, batch=batch, is_metered=True, step_s=0.31, median_s=0.31,
        standard_error_s=0.0, n_steps=8, forward_s=0.1, backward_s=0.2, optimizer_s=0.01,
    )  # fmt: skip


def test_a_ring_of_four_moves_three_halves_of_a_buffer() -> None:
    # 2 * (4 - 1) messages of a quarter of 8 MB at 1 MB/s
    assert exchange_s(Collective.ALL_REDUCE, 8e6, 4, Ring(1e6, 0.0, {})) == pytest.approx(12.0)
    assert exchange_s(Collective.ALL_GATHER, 8e6, 4, Ring(1e6, 0.0, {})) == pytest.approx(6.0)


@given(st.sampled_from([Collective.ALL_REDUCE, Collective.ALL_GATHER]), st.floats(1e3, 1e8), st.integers(1, 64))
def test_more_bytes_or_ranks_never_take_less_time(collective: Collective, size: float, n: int) -> None:
    assert exchange_s(collective, 2 * size, n, RING) >= exchange_s(collective, size, n, RING)
    assert exchange_s(collective, size, n + 1, RING) >= exchange_s(collective, size, n, RING)


@given(st.floats(1, 1e8), st.floats(1e3, 1e9), st.floats(1e-6, 1))
def test_a_message_takes_what_it_takes_empty_or_what_its_bytes_take(size: float, rate: float, empty: float) -> None:
    longer = max(empty, size / rate)
    assert longer <= message_s(Ring(rate, empty, {}), size) <= 2**0.25 * longer * (1 + 1e-9)


def test_a_factor_of_two_hosts_is_taken_between_the_sizes_that_are_known() -> None:
    ring = Ring(1e6, 0.0, {Collective.ALL_GATHER: ((1e4, 1.0), (1e6, 2.0))})
    assert [ring.pair_factor(Collective.ALL_GATHER, size) for size in (1.0, 1e4, 1e5, 1e6, 1e9)] == pytest.approx([1.0, 1.0, 1.5, 2.0, 2.0])
    assert exchange_s(Collective.ALL_GATHER, 1e6, 4, ring) == exchange_s(Collective.ALL_GATHER, 1e6, 4, replace(ring, pair_factors={}))


def test_buckets_hold_every_gradient_once_and_the_first_is_full_at_a_mebibyte() -> None:
    filled = list(buckets(0.2, SHAPE))
    assert sum(n_bytes for _, n_bytes in filled) == 4 * n_parameters(SHAPE)
    assert filled[0][1] >= 2**20
    assert [ready for ready, _ in filled] == sorted(ready for ready, _ in filled)
    assert filled[-1][0] == pytest.approx(0.2)


def test_units_hold_every_weight_once() -> None:
    assert sum(units(SHAPE)) == n_parameters(SHAPE)


def test_what_a_backward_pass_hides_is_not_paid_twice() -> None:
    exposed = exposed_reduction_s(WORK, SHAPE, 4, RING)
    whole = sum(exchange_s(Collective.ALL_REDUCE, n_bytes, 4, RING) for _, n_bytes in buckets(WORK.backward_s, SHAPE))
    slow_backward = exposed_reduction_s(replace(WORK, backward_s=1e3), SHAPE, 4, RING)
    last = exchange_s(Collective.ALL_REDUCE, list(buckets(1.0, SHAPE))[-1][1], 4, RING)
    assert last <= exposed <= whole
    assert slow_backward == pytest.approx(last)


@pytest.mark.parametrize("at", [point(8), point(8, Sharding.ZERO3), point(8, pipeline=True)])
def test_links_without_limit_leave_the_own_work(at: LabPoint) -> None:
    parts = step_parts_s(WORK, at, FREE)
    work = WORK.total_s / at.plan.pipeline_parallel_size
    assert parts["own work"] == pytest.approx(work)
    if at.plan.pipeline_parallel_size == 1:
        assert sum(parts.values()) == pytest.approx(work)


def test_free_sends_leave_the_bubble_of_the_textbook() -> None:
    # (micro-batches + stages - 1) passes of each stage. Source: Narayanan et al. 2021, arXiv 2104.04473, section 2.2.1
    at = point(4, pipeline=True)
    n, stages = at.batch.n_micro_batches, 4
    assert pipeline_s(WORK, at, FREE) == pytest.approx((n + stages - 1) * 0.3 / n / stages + 0.01 / stages)


@given(st.integers(1, 9), st.integers(0, 9))
def test_every_message_of_a_schedule_has_two_ends_and_every_pass_is_made(n_stages: int, more: int) -> None:
    n_micro = n_stages + more
    offered = [one for stage in range(n_stages) for what, batch in actions(stage, n_stages, n_micro) if what == "offer" for one in batch]
    assert len(offered) == len(set(offered)) == 4 * n_micro * (n_stages - 1)
    passes = [what for stage in range(n_stages) for what, _ in actions(stage, n_stages, n_micro) if what in "FB"]
    assert (passes.count("F"), passes.count("B")) == (n_micro * n_stages, n_micro * n_stages)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 6))
def test_slower_messages_never_make_a_faster_schedule(one_way: float, both_ways: float, n_stages: int) -> None:
    slow = schedule_s(StageTimes(0.1, 0.2, one_way, both_ways), n_stages, 8)
    assert slow >= schedule_s(StageTimes(0.1, 0.2, 0.0, 0.0), n_stages, 8) - 1e-9
