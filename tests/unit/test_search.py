"""The plans that are searched, and the one that is found."""

from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest

from bench.config.compose import compose
from bench.cost.coefficients import coefficients_of, log_values
from bench.cost.extrapolate import project
from bench.cost.layout import Layout, batch_of, plan_of
from bench.cost.memory import total_bytes
from bench.cost.plans import plan_search
from bench.cost.posterior import condition
from bench.cost.search import LEAST_TOKENS, best_plan, candidate_plans, divisors, powers_of_two, search
from bench.cost.stack_memory import stack_memory
from bench.cost.step_time import step_s
from bench.cost.workload import workload_of
from bench.errors import DoesNotFit
from bench.facts.hardware import Cluster, Precision
from bench.facts.model import Target
from bench.facts.plan import Sharding
from tests.round_numbers import CALIBRATION, CLUSTER, DEVICE, PRIOR, STACK, TARGET, figure
from tests.strategies import configured_shape

GROK = Target(name="grok1", model=configured_shape("grok1_314b"), n_tokens=figure(1e12), max_global_batch_size=figure(8192))

NEUTRAL = condition(PRIOR, None)


def of_size(n_nodes: int, memory_bytes: float = 80e9) -> Cluster:
    return replace(CLUSTER, n_nodes=n_nodes, device=replace(DEVICE, memory_bytes=figure(memory_bytes)))


@pytest.fixture(scope="module")
def candidates() -> Layout:
    return candidate_plans(GROK, of_size(3000))


def test_no_plan_takes_more_devices_than_there_are(candidates: Layout) -> None:
    assert candidates.n_devices.max() <= 24000
    assert candidates.n_devices.max() > 0.99 * 24000


def test_every_plan_keeps_the_rules_of_its_axes(candidates: Layout) -> None:
    assert set(candidates.tp) == {1, 2, 4, 8}
    assert not np.any(64 % (candidates.pp * candidates.n_virtual))
    assert set(candidates.ep) == {1, 2, 4, 8}
    assert not np.any(candidates.dp % candidates.ep)
    assert candidates.sequences.max() <= 8192
    assert candidates.n_micro.min() >= 1


def test_interleaved_plans_run_whole_rounds(candidates: Layout) -> None:
    chunked = candidates.n_virtual > 1
    assert not np.any(candidates.n_micro[chunked] % candidates.pp[chunked])
    assert np.all(candidates.pp[chunked] > 1)


def test_no_sequence_is_cut_finer_than_published(candidates: Layout) -> None:
    split = candidates.cp > 1
    assert np.min(candidates.micro_batch[split] * 8192 / candidates.cp[split]) >= LEAST_TOKENS


def test_batch_is_the_largest_multiple_below_the_limit(candidates: Layout) -> None:
    plain = candidates.n_virtual == 1
    next_larger = (candidates.n_micro + 1) * candidates.micro_batch * candidates.dp
    assert np.all(next_larger[plain] > 8192)


def test_best_plan_is_the_fastest_that_safely_fits(candidates: Layout) -> None:
    cluster = of_size(3000)
    best = best_plan(GROK, cluster, STACK, NEUTRAL)
    need, by = total_bytes(GROK.model, candidates), coefficients_of(log_values(PRIOR))
    all_s = step_s(workload_of(GROK.model, candidates, cluster, STACK), by)
    # nine in ten: 1.2816 standard deviations of 0.14 below 80e9
    per_sequence = np.where(need <= 80e9 * np.exp(-1.2816 * 0.14), all_s / candidates.sequences, np.inf)
    assert step_s(workload_of(GROK.model, best, cluster, STACK), by) / best.sequences == pytest.approx(per_sequence.min())
    assert plan_of(best).world_size <= 24000
    assert batch_of(best).global_batch_size <= 8192


def test_where_no_plan_is_safe_the_one_with_most_room_is_taken(candidates: Layout) -> None:
    least = float(total_bytes(GROK.model, candidates, stack_memory(STACK)).min())
    cluster = of_size(3000, 1.01 * least)
    best = best_plan(GROK, cluster, STACK, NEUTRAL)
    assert total_bytes(GROK.model, best, stack_memory(STACK)) == pytest.approx(least)
    prediction = project(GROK, cluster, CALIBRATION, STACK, None)
    # log(1.01) / 0.14 = 0.071 standard deviations: a chance of 52.8 %
    assert any("that it fits: the chance is 53%" in sentence for sentence in prediction.not_told)


def test_the_recommended_plan_fits_with_a_chance_of_nine_in_ten() -> None:
    found = plan_search(GROK, of_size(3000), STACK, NEUTRAL)
    assert found.recommended.fits_probability >= 0.9
    assert found.n_safe <= found.n_fitting
    assert found.recommended.slower_fraction >= 0


def test_no_two_plans_of_the_front_are_alike_in_time_or_memory() -> None:
    config = compose(["target=grok1_314b", "cluster=oracle_24k_h100"])
    found = search(config.target, config.clusters[0], config.stack, condition(config.prior, None))
    front = found.front()
    assert np.all(np.diff(found.log_pace[front]) > 0)
    assert np.all(np.diff(found.need_bytes[front]) < 0)


def test_search_takes_less_than_two_seconds_at_any_size() -> None:
    started = perf_counter()
    best_plan(GROK, of_size(100_000), STACK, NEUTRAL)
    assert perf_counter() - started < 2


def test_too_small_a_device_is_named_with_the_smallest_need() -> None:
    with pytest.raises(DoesNotFit, match=r"grok1 does not fit 8 x round: the smallest plan .* needs [\d.]+ GiB of 74\.5 GiB") as error:
        best_plan(GROK, of_size(1), STACK, NEUTRAL)
    assert "\n" not in str(error.value)


def test_a_device_without_the_precision_is_named() -> None:
    with pytest.raises(DoesNotFit, match=r"grok1 in fp4 does not run on round, which has no fp4 rate; use target\.precision=bf16"):
        best_plan(replace(GROK, precision=Precision.FP4), CLUSTER, STACK, NEUTRAL)


def test_batch_of_one_sequence_still_has_a_plan() -> None:
    best = best_plan(replace(TARGET, max_global_batch_size=figure(1)), CLUSTER, STACK, NEUTRAL)
    assert best.sequences == 1
    assert best.dp == 1


def test_the_front_is_what_no_other_plan_beats_in_both() -> None:
    found = search(GROK, of_size(3000), STACK, NEUTRAL)
    front = found.front()
    pace, need = found.log_pace[found.fits], found.need_bytes[found.fits]
    for place in front:
        beaten = (pace <= found.log_pace[place]) & (need <= found.need_bytes[place])
        assert np.all((pace[beaten] == found.log_pace[place]) | (need[beaten] == found.need_bytes[place]))
    assert np.all(np.diff(found.log_pace[front]) >= 0)
    assert np.all(np.diff(found.need_bytes[front]) < 0)


def test_a_runner_up_says_where_it_loses() -> None:
    found = plan_search(GROK, of_size(3000), STACK, NEUTRAL)
    assert found.front[0].slower_fraction == pytest.approx(0)
    assert found.front[0].why == "the fastest"
    for one in found.runners_up:
        assert one.why == "does not fit" or "%" in one.why or one.slower_fraction < 0.001
    assert found.n_fitting < found.n_plans


def test_weights_are_sharded_only_without_a_pipeline(candidates: Layout) -> None:
    assert not np.any(candidates.is_sharding(Sharding.ZERO3) & (candidates.pp > 1))
    assert np.any(candidates.is_sharding(Sharding.ZERO3))


def test_divisors_and_powers() -> None:
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert powers_of_two(72) == [1, 2, 4, 8, 16, 32, 64]
