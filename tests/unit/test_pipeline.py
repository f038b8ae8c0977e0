"""Pipelines against schedules worked by hand."""

import numpy as np
import pytest

from bench.cost.layout import Array
from bench.cost.pipeline import bubble_s, mean_stage_s, micro_batches_in_flight, micro_batches_in_flight_last, slowest_stage_s


def n(value: float) -> Array:
    return np.asarray(float(value))


def test_even_stages_wait_only_while_filling_and_draining() -> None:
    # 4 stages of 3 s, 8 micro-batches: 3 more beats than micro-batches
    assert bubble_s(n(3), n(3), n(8), n(4), n(1)) == pytest.approx(9)


def test_chunks_shorten_filling_and_draining() -> None:
    assert bubble_s(n(3), n(3), n(8), n(4), n(3)) == pytest.approx(3)


def test_everybody_waits_for_the_slowest_stage() -> None:
    assert bubble_s(n(3), n(4), n(8), n(1), n(1)) == pytest.approx(8)


def test_head_makes_the_last_stage_slow() -> None:
    # 8 layers of 1 s and a head of 0.5 s on 4 stages: the last takes 2.5 s, the mean 8.5 / 4
    assert slowest_stage_s(n(1), n(0.5), 8, n(4)) == pytest.approx(2.5)
    assert mean_stage_s(n(1), n(0.5), 8, n(4)) == pytest.approx(2.125)


def test_uneven_layers_spare_the_last_stage() -> None:
    # 126 layers on 16 stages: 14 stages of 8, the last has 7 and the head of half a layer; the first ones are slowest
    assert slowest_stage_s(n(1), n(0.5), 126, n(16)) == pytest.approx(8)


def test_single_stage_holds_everything_and_waits_for_nobody() -> None:
    assert slowest_stage_s(n(1), n(0.5), 8, n(1)) == mean_stage_s(n(1), n(0.5), 8, n(1)) == 8.5
    assert bubble_s(n(8.5), n(8.5), n(5), n(1), n(1)) == 0


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
