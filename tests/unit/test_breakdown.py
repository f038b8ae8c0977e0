"""What a breakdown says about made-up ranks, and what its table shows."""

from dataclasses import replace

import pytest

from bench.facts.breakdown import MemoryUse, Phase
from bench.facts.plan import ParallelPlan, Sharding
from bench.report.breakdown import breakdown_table
from bench.run.phases import PAIRED, PhaseSamples, breakdown_of, find_straggler, why_never_alone
from tests.round_numbers import measurement


def phases(forward_s: float, backward_s: float) -> dict[Phase, float]:
    return {Phase.DATA: 0.0, Phase.FORWARD: forward_s, Phase.BACKWARD: backward_s, Phase.OPTIMIZER: 0.1}


def rank(number: int, own_backward_s: float, coupled_backward_s: float, noise: float = 0.0) -> PhaseSamples:
    """Five steps of 1 s forward; the noise goes up and down around the backward time."""
    wiggle = [noise * d for d in (-2, -1, 0, 1, 2)]
    return PhaseSamples(
        rank=number,
        host=f"node{number // 2}",
        coupled_s=[phases(1.0, coupled_backward_s) for _ in wiggle],
        alone_s=[phases(1.0, own_backward_s + w) for w in wiggle],
    )


# every rank's backward ends with that of rank 2, which needs 3.0 s for its own and 0.5 s for an exchange that it does not hide
FOUR = [rank(0, 2.0, 3.5), rank(1, 2.0, 3.5), rank(2, 3.0, 3.5), rank(3, 2.1, 3.5)]


def test_the_slowest_rank_is_named_by_its_own_work_though_all_steps_are_equally_long() -> None:
    slow = find_straggler(FOUR)
    assert slow is not None
    # own work: 3.0, 3.0, 4.0, 3.1; the lower median is 3.0
    assert (slow.rank, slow.host, slow.own_s, slow.median_own_s) == (2, "node1", 4.0, 3.0)
    assert slow.ratio == pytest.approx(4 / 3)


def test_of_two_ranks_the_slower_is_compared_with_the_other() -> None:
    slow = find_straggler([rank(0, 1.0, 3.0), rank(1, 3.0, 3.0)])
    assert slow is not None
    assert (slow.rank, slow.ratio) == (1, 2.0)


def test_ranks_that_differ_by_chance_only_have_no_straggler() -> None:
    assert find_straggler([rank(0, 2.0, 3.0, noise=0.2), rank(1, 2.1, 3.0, noise=0.2)]) is None


def test_exposed_communication_is_that_of_the_rank_which_waits_for_nobody() -> None:
    parts = breakdown_of(FOUR, None)
    assert parts.exposed_communication_s == pytest.approx(0.5)
    assert parts.exposed_by == PAIRED
    assert [r.exposed_s for r in parts.ranks] == pytest.approx([1.5, 1.5, 0.5, 1.4])
    # 1.0 forward + 3.5 backward + 0.1 optimizer
    assert parts.step_s == pytest.approx(4.6)
    assert parts.own_s_by_host == {"node0": [3.0, 3.0], "node1": [4.0, 3.1]}


def test_what_cannot_be_paired_is_absent_with_its_reason() -> None:
    coupled = [replace(samples, alone_s=[]) for samples in FOUR]
    parts = breakdown_of(coupled, "not measured: because")
    assert (parts.exposed_communication_s, parts.straggler, parts.exposed_by) == (None, None, "not measured: because")
    assert all(r.own_s is None and r.exposed_s is None for r in parts.ranks)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (ParallelPlan(data_parallel_size=1), "one rank"),
        (ParallelPlan(data_parallel_size=2, tensor_parallel_size=2), "activations"),
        (ParallelPlan(data_parallel_size=2, expert_parallel_size=2), "activations"),
        (ParallelPlan(data_parallel_size=2, sharding=Sharding.ZERO2), "zero2 gathers weights"),
        (ParallelPlan(data_parallel_size=2, sharding=Sharding.ZERO3), "zero3 gathers weights"),
    ],
)
def test_ranks_that_need_one_another_within_a_pass_are_not_uncoupled(plan: ParallelPlan, words: str) -> None:
    assert words in (why_never_alone(plan) or "")


def test_copies_of_a_model_can_be_uncoupled() -> None:
    assert why_never_alone(ParallelPlan(data_parallel_size=4)) is None


def test_the_table_names_the_slowest_rank_and_its_share_of_memory() -> None:
    use = MemoryUse(
        rank=2,
        parameters_bytes=2**30,
        gradients_bytes=2**30,
        optimizer_bytes=2**31,
        activations_bytes=2**32,
        peak_allocated_bytes=2**33,
        peak_reserved_bytes=2**33,
        n_retries=1,
        n_out_of_memory=0,
    )
    table = breakdown_table(measurement(1.0, breakdown=breakdown_of(FOUR, None), memory=(use,)))
    assert table is not None
    assert len(table.rows) == 4
    assert table.rows[2][-1] == "4.00 GiB"
    notes = " ".join(table.notes)
    for words in ("rank 2 on node1, 1.33 x", "500 ms, 10.9 % of the step", "4.00 GiB activations", "1 retries"):
        assert words in notes


def test_nothing_is_shown_where_nothing_was_broken_down() -> None:
    assert breakdown_table(measurement(1.0)) is None
