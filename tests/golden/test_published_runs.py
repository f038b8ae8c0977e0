"""The prior against the published runs it is fitted to, and the predictions against runs that it has never seen."""

from collections.abc import Mapping
from math import log

import numpy as np
import pytest

from bench.cost.extrapolate import step_interval
from bench.cost.memory import memory
from bench.facts.figure import Interval
from bench.facts.hardware import Cluster
from bench.facts.prediction import Prior
from tests.golden.published import Setup, clusters, fit, of, on, percent, published_prior, read

SMALL, LARGE = read("published_small_runs.csv"), read("published_large_runs.csv")


@pytest.fixture(scope="module")
def found() -> dict[str, Cluster]:
    return clusters()


@pytest.fixture(scope="module")
def prior() -> Prior:
    return published_prior()


@pytest.fixture(scope="module")
def predicted(prior: Prior, found: dict[str, Cluster]) -> dict[str, Interval]:
    """Tokens per second and device from the set-ups alone."""
    return {name: predict(prior, setup, found) for name, (setup, _) in LARGE.items()}


def predict(prior: Prior, setup: Setup, found: Mapping[str, Cluster]) -> Interval:
    step = step_interval(setup.shape, setup.layout, on(found[setup.device], setup), of(prior, setup))
    tokens = setup.batch.global_batch_size * setup.shape.seq_len / setup.plan.world_size
    return Interval(p10=tokens / step.p90, p50=tokens / step.p50, p90=tokens / step.p10)


def log_ratios(predicted: Mapping[str, Interval], start: str = "") -> list[float]:
    return [log(predicted[name].p50 / observed) for name, (_, observed) in LARGE.items() if name.startswith(start)]


def test_prior_is_the_fit_to_the_small_runs(prior: Prior, found: dict[str, Cluster]) -> None:
    result = fit(prior, list(SMALL.values()), found)
    assert prior.other_work_fraction.value == pytest.approx(result.other_work_fraction, abs=5e-4)
    assert prior.expert_kernel_fraction.value == pytest.approx(result.expert_kernel_fraction, abs=5e-4)
    assert prior.kernel_factor_by_device["B200-SXM"].value == pytest.approx(result.b200_kernel_factor, abs=5e-4)
    assert prior.stack_fraction.log_sd == pytest.approx(result.stack_log_sd, abs=5e-4)


def test_no_run_is_both_fitted_and_predicted() -> None:
    assert not set(SMALL) & set(LARGE)
    assert max(setup.plan.world_size for setup, _ in SMALL.values()) <= 64
    assert min(setup.plan.world_size for setup, _ in LARGE.values()) >= 128


def test_intervals_hold_most_of_what_was_observed(predicted: dict[str, Interval]) -> None:
    """20 of 23, where an 80 % interval should hold 18. The runs are few stacks, so this is not 23 independent draws."""
    inside = [predicted[name].p10 <= observed <= predicted[name].p90 for name, (_, observed) in LARGE.items()]
    assert np.mean(inside) >= 0.75
    assert sum(inside) == 20


def test_median_error_is_twelve_percent(predicted: dict[str, Interval]) -> None:
    """Too slow by 11 % in the mean: large dense models run better than the small ones the prior is fitted to."""
    assert percent(float(np.median(np.abs(log_ratios(predicted))))) == pytest.approx(12.3, abs=0.5)
    assert percent(float(np.quantile(np.abs(log_ratios(predicted)), 0.9))) < 25
    assert np.mean(log_ratios(predicted)) == pytest.approx(-0.115, abs=0.01)


@pytest.mark.parametrize(
    ("start", "worst_percent"),
    [("dgxc-v24.11.1-grok1", 6), ("dgxc-v24.11.1-gpt3", 8), ("dgxc-v25.02-gpt3", 15), ("dgxc-v25.02-llama", 22), ("llama3-405b", 5)],
)
def test_error_of_each_series(predicted: dict[str, Interval], start: str, worst_percent: float) -> None:
    ratios = log_ratios(predicted, start)
    assert ratios
    assert max(percent(ratio) for ratio in ratios) < worst_percent


def test_grok_loses_as_little_from_512_to_2048_devices_as_was_seen(predicted: dict[str, Interval]) -> None:
    name = "dgxc-v24.11.1-grok1314b-bf16-h100x"
    seen = LARGE[name + "2048"][1] / LARGE[name + "512"][1]
    expected = predicted[name + "2048"].p50 / predicted[name + "512"].p50
    assert expected == pytest.approx(seen, abs=0.01)


def test_most_published_plans_fit(found: dict[str, Cluster]) -> None:
    """All of them ran. The account is too cautious for four dense ones, which keep gradients in bf16 or shard them."""
    fits = {
        name: memory(setup.shape, setup.plan, setup.batch, found[setup.device].device).fits for name, (setup, _) in (SMALL | LARGE).items()
    }
    assert {name for name, ok in fits.items() if not ok} == {
        "dgxc-v25.02-llama31405bkv16-bf16-h100x576",
        "dgxc-v24.11.1-nemotron4340b-bf16-h100x128",
        "llama3-405b-h100x8192",
        "llama3-405b-h100x16384",
    }
