"""The plans that are searched, and the one that is found."""

from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest

from bench.cost.draws import medians
from bench.cost.layout import Layout, batch_of, plan_of
from bench.cost.memory import total_bytes
from bench.cost.search import LEAST_TOKENS, best_plan, candidate_plans, divisors, powers_of_two
from bench.cost.step_time import Job, step_s
from bench.errors import DoesNotFit
from bench.facts.hardware import Cluster
from bench.facts.model import Target
from tests.round_numbers import CLUSTER, DEVICE, PRIOR, TARGET, figure
from tests.strategies import configured_shape

GROK = Target(name="grok1", model=configured_shape("grok1_314b"), n_tokens=figure(1e12), max_global_batch_size=figure(8192))


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


def test_best_plan_is_the_fastest_that_fits(candidates: Layout) -> None:
    cluster = of_size(3000)
    best = best_plan(GROK, cluster, PRIOR)
    need = total_bytes(GROK.model, candidates)
    job = Job(shape=GROK.model, layout=candidates, cluster=cluster, draws=medians(PRIOR, "round"))
    per_sequence = np.where(need <= 80e9, step_s(job) / candidates.sequences, np.inf)
    found = Job(shape=GROK.model, layout=best, cluster=cluster, draws=medians(PRIOR, "round"))
    assert step_s(found) / best.sequences == pytest.approx(per_sequence.min())
    assert plan_of(best).world_size <= 24000
    assert batch_of(best).global_batch_size <= 8192


def test_search_takes_less_than_two_seconds_at_any_size() -> None:
    started = perf_counter()
    best_plan(GROK, of_size(100_000), PRIOR)
    assert perf_counter() - started < 2


def test_too_small_a_device_is_named_with_the_smallest_need() -> None:
    with pytest.raises(DoesNotFit, match=r"grok1 does not fit 8 x round: the smallest plan .* needs [\d.]+ GiB of 74\.5 GiB") as error:
        best_plan(GROK, of_size(1), PRIOR)
    assert "\n" not in str(error.value)


def test_batch_of_one_sequence_still_has_a_plan() -> None:
    best = best_plan(replace(TARGET, max_global_batch_size=figure(1)), CLUSTER, PRIOR)
    assert best.sequences == 1
    assert best.dp == 1


def test_divisors_and_powers() -> None:
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert powers_of_two(72) == [1, 2, 4, 8, 16, 32, 64]
