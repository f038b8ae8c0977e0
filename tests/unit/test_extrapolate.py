"""A projection: what follows from the step, and what is said about it."""

from dataclasses import replace

import numpy as np
import pytest

from bench.cost.calibrate import Calibration
from bench.cost.extrapolate import doublings_beyond_reach, predict, project
from bench.cost.flops import Convention, flops_per_token
from bench.cost.posterior import condition
from bench.errors import DoesNotFit
from bench.facts.figure import Figure, Provenance
from bench.facts.prediction import Part, Prior
from tests.round_numbers import (
    CALIBRATION,
    CLUSTER,
    DEVICE,
    PRIOR,
    SMALL,
    STACK,
    TARGET,
    coefficient,
    figure,
    layout,
    uncertain,
)


def known(prior: Prior) -> Calibration:
    return replace(CALIBRATION, posterior=condition(prior, None))


SURE = project(TARGET, CLUSTER, CALIBRATION, STACK, figure(2.0))
UNSURE = project(TARGET, CLUSTER, known(uncertain(PRIOR, 0.1)), STACK, figure(2.0))
STACK_ALONE = replace(PRIOR, coefficients=PRIOR.coefficients | {"stack_factor": coefficient(1.0, 0.1, 0.2)})


def test_tokens_per_second_are_those_of_the_step() -> None:
    tokens = UNSURE.batch.global_batch_size * 1024
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


def test_an_interval_of_utilization_ends_at_the_peak() -> None:
    wild = project(TARGET, CLUSTER, known(uncertain(PRIOR, 2.0)), STACK, None)
    assert wild.mfu_causal.p90 == pytest.approx(1.0)


def test_without_a_price_there_is_no_rental() -> None:
    prediction = project(TARGET, CLUSTER, CALIBRATION, STACK, None)
    assert prediction.rental_usd is None
    assert prediction.rental_basis.startswith("n/a")


@pytest.mark.parametrize("prediction", [SURE, UNSURE])
def test_parts_add_up_to_the_median_step(prediction: object) -> None:
    assert isinstance(prediction, type(SURE))
    assert {part.part for part in prediction.parts} == set(Part)
    assert sum(part.time_s for part in prediction.parts) == pytest.approx(prediction.step_s.p50, rel=1e-12)


def test_sure_prior_gives_a_point() -> None:
    assert SURE.step_s.p10 == pytest.approx(SURE.step_s.p90, rel=0.01)
    assert UNSURE.step_s.p10 < UNSURE.step_s.p50 < UNSURE.step_s.p90


def test_interval_of_one_uncertain_factor_is_that_of_the_log_normal() -> None:
    # the stack alone, log sd 0.2: p90 / p50 = exp(1.2816 * 0.2)
    step = project(TARGET, CLUSTER, known(STACK_ALONE), STACK, None).step_s
    assert step.p90 / step.p50 == pytest.approx(np.exp(1.2816 * 0.2), rel=1e-3)
    assert step.p10 / step.p50 == pytest.approx(np.exp(-1.2816 * 0.2), rel=1e-3)


def test_one_uncertain_factor_is_the_whole_cause() -> None:
    first = project(TARGET, CLUSTER, known(STACK_ALONE), STACK, None).uncertainty[0]
    assert first.cause == "software stack"
    assert first.share == pytest.approx(1, abs=1e-3)
    assert first.log_sd == pytest.approx(0.2, rel=1e-2)


def test_beyond_the_published_reach_the_interval_widens() -> None:
    # 4 doublings of 0.1 in quadrature to 0.3 of the stack: 0.5
    prior = replace(PRIOR, coefficients=PRIOR.coefficients | {"stack_factor": coefficient(1.0, 0.1, 0.3)})
    assert doublings_beyond_reach(prior, 8192) == 0
    assert doublings_beyond_reach(prior, 131072) == pytest.approx(4)
    huge = replace(CLUSTER, n_nodes=16384)
    plan = layout(data_parallel_size=131072)
    step = predict(TARGET, huge, known(prior), stack=STACK, layout=plan, rental=None).step_s
    assert np.log(step.p90 / step.p50) == pytest.approx(1.2816 * 0.5, rel=1e-3)


def test_reach_is_said() -> None:
    large = replace(CLUSTER, n_nodes=2048)
    target = replace(TARGET, max_global_batch_size=figure(65536))
    assert any("no published collective goes beyond 8,192" in text for text in project(target, large, CALIBRATION, STACK, None).not_told)
    assert SURE.not_told[0] == "b"


def test_idle_devices_are_said() -> None:
    few = replace(TARGET, max_global_batch_size=figure(2))
    found = project(few, replace(CLUSTER, n_nodes=2048), CALIBRATION, STACK, None)
    assert any("a use for" in sentence for sentence in found.not_told)


def test_oversubscription_is_said() -> None:
    oversubscribed = replace(CLUSTER, oversubscription=figure(7))
    assert any("oversubscribed" in sentence for sentence in project(TARGET, oversubscribed, CALIBRATION, STACK, None).not_told)


def test_provenance_is_the_weakest_it_rests_on() -> None:
    measured = Figure(value=1e12, provenance=Provenance.MEASURED, source="here")
    cluster = replace(CLUSTER, device=replace(DEVICE, memory_bytes_per_s=measured))
    prediction = project(TARGET, cluster, CALIBRATION, STACK, None)
    by_part = {part.part: part.provenance for part in prediction.parts}
    assert by_part[Part.OPTIMIZER] is Provenance.FITTED
    assert by_part[Part.COMPUTE] is Provenance.ASSUMED
    assert prediction.provenance is Provenance.ASSUMED


def test_given_plan_is_predicted_as_it_is() -> None:
    plan = layout(n_micro=4, data_parallel_size=8, tensor_parallel_size=8)
    prediction = predict(TARGET, CLUSTER, CALIBRATION, stack=STACK, layout=plan, rental=None)
    assert prediction.n_devices_used == 64
    assert prediction.batch.global_batch_size == 32
    assert prediction.told == ("a",)


def test_model_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(DoesNotFit):
        project(TARGET, replace(CLUSTER, device=replace(DEVICE, memory_bytes=figure(1e9))), CALIBRATION, STACK, None)


def test_advice_never_promises_to_know_less() -> None:
    assert UNSURE.next_runs
    for run in UNSURE.next_runs:
        assert 0 <= run.after_fraction <= run.before_fraction
        assert run.device_minutes > 0
    gains = [(run.before_fraction - run.after_fraction) / run.device_minutes for run in UNSURE.next_runs]
    assert gains == sorted(gains, reverse=True)
