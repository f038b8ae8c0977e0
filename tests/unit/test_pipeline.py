"""Pipelines against schedules worked by hand, and against every way of dealing layers out."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cost.layout import Array
from bench.cost.pipeline import beat_s, mean_stage_s, micro_batches_in_flight, micro_batches_in_flight_last, n_blocking_sends
from tests.round_numbers import SMALL, STACK, coefficients, layout, work_of

BALANCED = replace(STACK, balanced_stages=True)


def n(value: float) -> Array:
    return np.asarray(float(value))


def equal_beat(layer: float, head: float, n_layers: int, pp: int) -> Array:
    return beat_s(n(layer), n(head), work_of(layout(pipeline_parallel_size=pp), replace(SMALL, n_layers=n_layers)))


def test_head_makes_the_last_stage_slow() -> None:
    # 8 layers of 1 s and a head of 0.5 s on 4 stages: the last takes 2.5 s, the mean 8.5 / 4
    assert equal_beat(1, 0.5, 8, 4) == pytest.approx(2.5)
    assert mean_stage_s(n(1), n(0.5), n(8), n(4)) == pytest.approx(2.125)


def test_uneven_layers_spare_the_last_stage() -> None:
    # 126 layers on 16 stages: 14 stages of 8, the last has 7 and the head of half a layer; the first ones are slowest
    assert equal_beat(1, 0.5, 126, 16) == pytest.approx(8)


def test_single_stage_holds_everything_and_waits_for_nobody() -> None:
    assert equal_beat(1, 0.5, 8, 1) == mean_stage_s(n(1), n(0.5), n(8), n(1)) == 8.5


def test_balanced_stages_take_layers_off_the_last_one() -> None:
    # 8 layers and a head of 2 on 4 stages: 2, 3, 3, 0 with the head or 3, 3, 2 and the head alone: 3 either way, equal ones take 4
    work = work_of(layout(pipeline_parallel_size=4), stack=BALANCED)
    assert beat_s(n(1), n(2), work) == pytest.approx(3)
    assert equal_beat(1, 2, 8, 4) == pytest.approx(4)


@given(st.integers(1, 60), st.integers(2, 16), st.floats(0.01, 10), st.floats(0, 50))
def test_balanced_beat_is_the_best_of_all_ways_to_deal_layers_out(n_layers: int, pp: int, layer: float, head: float) -> None:
    work = work_of(layout(pipeline_parallel_size=pp), replace(SMALL, n_layers=n_layers), stack=BALANCED)
    ways = [max(k * layer + head, -(-(n_layers - k) // (pp - 1)) * layer) for k in range(n_layers + 1)]
    mean = (n_layers * layer + head) / pp
    assert float(beat_s(n(layer), n(head), work)) == pytest.approx(max(min(ways), mean))


def test_blocking_sends_are_two_per_micro_batch_at_the_ends() -> None:
    # two stages, 5 micro-batches: four times two, and once there and back
    by = coefficients(blocking_inner_factor=1.5)
    two = work_of(layout(n_micro=5, pipeline_parallel_size=2), blocking_sends=1.0)
    four = work_of(layout(n_micro=5, pipeline_parallel_size=4), blocking_sends=1.0)
    assert n_blocking_sends(two, by) == 4 * 2 + 2
    assert n_blocking_sends(four, by) == 4 * 3 + 6
    assert n_blocking_sends(work_of(layout(n_micro=5, pipeline_parallel_size=4)), by) == 0


def test_first_stage_holds_as_many_micro_batches_as_stages() -> None:
    assert micro_batches_in_flight(n(64), n(4), n(1)) == 4
    assert micro_batches_in_flight_last(n(64), n(4), n(1)) == 1


def test_interleaving_holds_more() -> None:
    # 4 stages of 2 chunks: 4 * (1 + 3 / 8) = 5.5 whole stages; the last (1 * 4 + 1) / 2 = 2.5
    assert micro_batches_in_flight(n(64), n(4), n(2)) == pytest.approx(5.5)
    assert micro_batches_in_flight_last(n(64), n(4), n(2)) == pytest.approx(2.5)


def test_never_more_in_flight_than_there_are() -> None:
    assert micro_batches_in_flight(n(2), n(4), n(2)) == 2
    assert micro_batches_in_flight_last(n(2), n(4), n(2)) == 2
