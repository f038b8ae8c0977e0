"""A projection: what follows from the step, and what is said about it."""

from dataclasses import replace

import numpy as np
import pytest

from bench.cost.draws import doublings_beyond_reach, draws, interval
from bench.cost.extrapolate import predict, project
from bench.cost.flops import Convention, flops_per_token
from bench.errors import DoesNotFit
from bench.facts.figure import Figure, Provenance
from bench.facts.prediction import Calibration, Part
from tests.round_numbers import CALIBRATION, CLUSTER, DEVICE, PRIOR, SMALL, TARGET, figure, layout, parameter, uncertain

SURE = project(TARGET, CLUSTER, CALIBRATION, figure(2.0))
UNSURE = project(TARGET, CLUSTER, replace(CALIBRATION, prior=uncertain(PRIOR, 0.1)), figure(2.0))


def test_tokens_per_second_are_those_of_the_step() -> None:
    tokens = SURE.batch.global_batch_size * 1024
    assert UNSURE.tokens_per_s.p50 == pytest.approx(tokens / UNSURE.step_s.p50)
    assert UNSURE.tokens_per_s.p10 == pytest.approx(tokens / UNSURE.step_s.p90)


def test_days_and_rental_follow_from_tokens_per_second() -> None:
    assert SURE.days.p50 == pytest.approx(1e9 / SURE.tokens_per_s.p50 / 86400)
    assert SURE.rental_usd is not None
    assert SURE.rental_usd.p50 == pytest.approx(SURE.days.p50 * 24 * 2.0 * SURE.n_devices_used)
    assert "$2.00 per device-hour" in SURE.rental_basis


def test_mfu_is_of_the_devices_in_use() -> None:
    flops = SURE.tokens_per_s.p50 * flops_per_token(SMALL, Convention.CAUSAL)
    assert SURE.mfu_causal.p50 == pytest.approx(flops / SURE.n_devices_used / 1e15)
    assert SURE.mfu_full.p50 > SURE.mfu_causal.p50


def test_without_a_price_there_is_no_rental() -> None:
    prediction = project(TARGET, CLUSTER, CALIBRATION, None)
    assert prediction.rental_usd is None
    assert prediction.rental_basis.startswith("n/a")


@pytest.mark.parametrize("prediction", [SURE, UNSURE])
def test_parts_add_up_to_the_median_step(prediction: object) -> None:
    assert isinstance(prediction, type(SURE))
    assert {part.part for part in prediction.parts} == set(Part)
    assert sum(part.time_s for part in prediction.parts) == pytest.approx(prediction.step_s.p50, rel=1e-12)


def test_sure_prior_gives_a_point() -> None:
    assert SURE.step_s.p10 == pytest.approx(SURE.step_s.p90)
    assert UNSURE.step_s.p10 < UNSURE.step_s.p50 < UNSURE.step_s.p90


def test_interval_of_one_uncertain_factor_is_that_of_the_log_normal() -> None:
    # the stack alone, log sd 0.2: p90 / p50 = exp(1.2816 * 0.2)
    prior = replace(PRIOR, stack_fraction=parameter(1.0, 0.2))
    step = project(TARGET, CLUSTER, replace(CALIBRATION, prior=prior), None).step_s
    assert step.p90 / step.p50 == pytest.approx(np.exp(1.2816 * 0.2), rel=0.02)
    assert step.p10 / step.p50 == pytest.approx(np.exp(-1.2816 * 0.2), rel=0.02)


def test_draws_are_the_same_every_time_and_centred() -> None:
    prior = uncertain(PRIOR, 0.3)
    first, again = draws(prior, "round", 64), draws(prior, "round", 64)
    assert np.array_equal(first.kernel_fraction, again.kernel_fraction)
    assert np.mean(np.log(first.kernel_fraction)) == pytest.approx(0, abs=0.01)
    assert np.std(np.log(first.kernel_fraction)) == pytest.approx(0.3, rel=0.03)
    assert abs(np.corrcoef(first.kernel_fraction, first.stack_fraction)[0, 1]) < 0.1


def test_beyond_the_published_reach_the_stack_widens() -> None:
    # 4 doublings of 0.1 in quadrature to 0.3: 0.5
    prior = replace(PRIOR, stack_fraction=parameter(1.0, 0.3))
    assert doublings_beyond_reach(prior, 8192) == 0
    assert doublings_beyond_reach(prior, 131072) == pytest.approx(4)
    assert np.std(np.log(draws(prior, "round", 131072).stack_fraction)) == pytest.approx(0.5, rel=0.03)


def test_reach_is_said() -> None:
    large = replace(CLUSTER, n_nodes=2048)
    target = replace(TARGET, max_global_batch_size=figure(65536))
    assert any("no published collective goes beyond 8,192" in sentence for sentence in project(target, large, CALIBRATION, None).not_told)
    assert SURE.not_told[0] == "b"


def test_idle_devices_are_said() -> None:
    few = replace(TARGET, max_global_batch_size=figure(2))
    assert any("a use for" in sentence for sentence in project(few, replace(CLUSTER, n_nodes=2048), CALIBRATION, None).not_told)


def test_oversubscription_is_said() -> None:
    oversubscribed = replace(CLUSTER, oversubscription=figure(7))
    assert any("oversubscribed" in sentence for sentence in project(TARGET, oversubscribed, CALIBRATION, None).not_told)


def test_provenance_is_the_weakest_it_rests_on() -> None:
    measured = Figure(value=1e12, provenance=Provenance.MEASURED, source="here")
    cluster = replace(CLUSTER, device=replace(DEVICE, memory_bytes_per_s=measured))
    prior = replace(PRIOR, memory_rate_fraction=replace(parameter(1.0), provenance=Provenance.PUBLISHED))
    prediction = project(TARGET, cluster, Calibration(prior=prior, told=(), not_told=()), None)
    by_part = {part.part: part.provenance for part in prediction.parts}
    assert by_part[Part.OPTIMIZER] is Provenance.PUBLISHED
    assert by_part[Part.COMPUTE] is Provenance.ASSUMED
    assert prediction.provenance is Provenance.ASSUMED


def test_given_plan_is_predicted_as_it_is() -> None:
    plan = layout(n_micro=4, data_parallel_size=8, tensor_parallel_size=8)
    prediction = predict(TARGET, CLUSTER, CALIBRATION, plan, None)
    assert prediction.n_devices_used == 64
    assert prediction.batch.global_batch_size == 32
    assert prediction.told == ("a",)


def test_model_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(DoesNotFit):
        project(TARGET, replace(CLUSTER, device=replace(DEVICE, memory_bytes=figure(1e9))), CALIBRATION, None)


def test_interval_is_made_of_quantiles() -> None:
    found = interval(np.arange(101.0))
    assert (found.p10, found.p50, found.p90) == (10, 50, 90)
