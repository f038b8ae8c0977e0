"""What measured rows tell about a stack: synthetic stacks with known answers."""

from dataclasses import replace

import numpy as np
import pytest

from bench.cost.coefficients import NAMES, coefficients_of, log_values
from bench.cost.fit import Sample, fit
from bench.cost.layout import Array
from bench.cost.posterior import Evidence, condition
from bench.cost.step_time import log_device_s_per_token
from bench.cost.table import Table, single
from bench.cost.uncertainty import CAUSES, causes_of, predicted
from bench.cost.workload import Workload, concatenate
from bench.errors import UsageError
from bench.facts.prediction import Prior
from tests.round_numbers import PRIOR, SMALL, coefficient, figure, layout, with_coefficients, work_of

# Stacks differ by 10 % in everything else and by 20 % in how their products run; rows repeat to 2 %.
SPREAD = replace(
    PRIOR,
    coefficients=PRIOR.coefficients | {"stack_factor": coefficient(1.0, 0.3, 0.1), "kernel_fraction": coefficient(0.8, 0.3, 0.2)},
    row_log_sd=figure(0.02),
    series_log_sd=figure(0.01),
)


FAST = {"memory_bytes_per_s": 1e16, "node_out_bytes_per_s": 1e15, "scale_up_bytes_per_s": 1e15}  # so that products decide


def works(n: int = 6) -> list[Workload]:
    """Rows of one stack: depths, sequences, passes and device counts apart."""
    return [
        work_of(layout(n_micro=1 + i % 3, data_parallel_size=2**i), replace(SMALL, n_layers=4 + 2 * i, seq_len=512 * (1 + i % 2)), **FAST)
        for i in range(n)
    ]


def table_of(rows: list[Workload]) -> Table:
    n = len(rows)
    return Table(work=concatenate(rows), owner=np.arange(n), weight=np.ones(n), series=np.arange(n))


def truth(rows: list[Workload], **values: float) -> Array:
    by = coefficients_of(log_values(with_coefficients(SPREAD, **values)))
    return np.array([float(log_device_s_per_token(row, by)) for row in rows])


def evidence(rows: list[Workload], log_s: Array) -> Evidence:
    return Evidence(table=table_of(rows), log_s=log_s)


def test_without_rows_the_prior_speaks() -> None:
    posterior = condition(SPREAD, None)
    mean, variance = posterior.predict(table_of(works()))
    assert mean == pytest.approx(truth(works()))
    assert np.all(variance > 0.1**2)


def test_a_slow_stack_is_found_and_carried_over() -> None:
    rows = works()
    posterior = condition(SPREAD, evidence(rows[:3], truth(rows[:3], kernel_fraction=0.6)))
    mean, variance = posterior.predict(table_of(rows[3:]))
    wanted, before = truth(rows[3:], kernel_fraction=0.6), truth(rows[3:])
    assert np.all(np.abs(mean - wanted) < 0.3 * np.abs(before - wanted))
    assert np.all(variance < condition(SPREAD, None).predict(table_of(rows[3:]))[1])


def test_the_measured_row_is_predicted_within_its_interval() -> None:
    row = works()[:1]
    log_s = truth(row) + 0.15
    posterior = condition(SPREAD, evidence(row, log_s))
    mean, sd = predicted(posterior, table_of(row))
    assert abs(float(mean[0] - log_s[0])) < 1.2816 * float(sd[0])


def test_one_wild_row_does_not_move_the_others() -> None:
    rows = works(10)
    log_s = truth(rows)
    log_s[4] += 2.0
    mean, _ = condition(SPREAD, evidence(rows, log_s)).predict(table_of(rows))
    others = np.arange(10) != 4
    assert np.abs(mean - truth(rows))[others].max() < 0.05


def test_noise_is_learned_from_many_rows() -> None:
    rows = works(10) * 4
    noisy = truth(rows) + 0.1 * np.where(np.arange(40) % 2, 1.0, -1.0)
    assert condition(SPREAD, evidence(rows, noisy)).row_log_sd == pytest.approx(0.1, rel=0.3)


def test_a_row_from_elsewhere_counts_less() -> None:
    rows = works()
    slow = truth(rows[:1]) + 0.3
    near = condition(SPREAD, Evidence(table=table_of(rows[:1]), log_s=slow))
    far = condition(SPREAD, Evidence(table=table_of(rows[:1]), log_s=slow, transfer_log_sd=0.5))
    prior_mean = truth(rows[1:2])
    assert 0 < far.predict(table_of(rows[1:2]))[0] - prior_mean < near.predict(table_of(rows[1:2]))[0] - prior_mean


def test_what_a_further_run_would_leave_is_what_it_leaves() -> None:
    rows = works()
    target, further = table_of(rows[4:5]), table_of(rows[:2])
    promised = condition(SPREAD, None).variance_after(target, further)
    seen = condition(SPREAD, evidence(rows[:2], truth(rows[:2])))
    assert float(promised[0]) == pytest.approx(float(seen.predict(target)[1][0]), rel=0.2)


def test_causes_share_the_whole_variance() -> None:
    assert sorted(name for names in CAUSES.values() for name in names) == sorted(NAMES)
    found = causes_of(condition(SPREAD, None), single(works()[0]))
    assert sum(cause.share for cause in found) == pytest.approx(1)
    assert found[0].cause == "compute efficiency"


def synthetic_stacks(n_stacks: int = 24) -> Sample:
    """Stacks whose products run at 0.5 in the median, 20 % apart; nothing else differs."""
    rng = np.random.default_rng(7)
    rows, log_s, stack = [], [], []
    for i in range(n_stacks):
        mine = works(4)
        rows += mine
        log_s += list(truth(mine, kernel_fraction=0.5 * np.exp(0.2 * rng.standard_normal())) + 0.02 * rng.standard_normal(4))
        stack += [i] * 4
    return Sample(evidence=evidence(rows, np.array(log_s)), stack=np.array(stack))


@pytest.fixture(scope="module")
def fitted() -> Prior:
    return fit(SPREAD, synthetic_stacks())


def test_shared_coefficients_are_recovered_within_their_stated_error(fitted: Prior) -> None:
    found = fitted.coefficients["kernel_fraction"]
    assert abs(np.log(found.value / 0.5)) < 3 * found.log_sd
    assert found.log_sd < 0.3


def test_the_scatter_of_stacks_is_recovered(fitted: Prior) -> None:
    assert fitted.coefficients["kernel_fraction"].stack_log_sd == pytest.approx(0.2, rel=0.35)
    assert fitted.coefficients["stack_factor"].stack_log_sd < 0.1


def test_a_fit_is_the_same_every_time(fitted: Prior) -> None:
    assert fit(SPREAD, synthetic_stacks()) == fitted


def test_every_fitted_figure_says_what_it_is_fitted_to(fitted: Prior) -> None:
    assert all("fitted to 96 published rows of 24 stacks" in c.source for c in fitted.coefficients.values())


def test_a_prior_without_a_coefficient_is_refused() -> None:
    less = {name: c for name, c in PRIOR.coefficients.items() if name != "bucket_bytes"}
    with pytest.raises(UsageError, match=r"prior\.coefficients\.bucket_bytes: missing"):
        log_values(replace(PRIOR, coefficients=less))
