"""Laws of what a device shows alone: it moves what it informs, towards what it shows, and narrows no more than that holds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.config.compose import conf_dir, load_prior
from bench.cost.calibrate import calibrate
from bench.cost.coefficients import NAMES, coefficients_of, log_values, stack_log_sds
from bench.cost.layer import STREAM_FRACTION
from bench.cost.observation import Observation, Observed, observation, updated
from bench.cost.posterior import Posterior, condition
from bench.cost.probed import LAUNCH_S, from_profile
from bench.cost.sliced import from_slice, to_be_sliced
from bench.cost.step_time import step_parts
from bench.cost.table import single
from bench.cost.uncertainty import causes_of
from bench.cost.workload import workload_of
from bench.facts.breakdown import DeviceTelemetry
from bench.facts.hardware import Architecture, Backend, Precision
from bench.facts.plan import ParallelPlan
from bench.facts.prediction import Part
from bench.facts.profile import (
    PROFILE_VERSION,
    Cache,
    DeviceProfile,
    Load,
    ProbeKind,
    ProbeSamples,
    RepeatPolicy,
    SliceMeasurement,
    SlicePart,
    SliceSpec,
    Timing,
    WorkUnit,
)
from bench.run.sources import Reading
from bench.run.telemetry import summarize
from tests.round_numbers import CLUSTER, DEVICE, SMALL, STACK, figure, layout
from tests.unit.test_profile import profile

PRIOR = load_prior(conf_dir() / "prior" / "published.yaml")
CENTER = log_values(PRIOR)
KINDRED = replace(DEVICE, name="kindred", torch_names=("Kindred 1",), memory_bytes_per_s=figure(2e12))
OTHER = replace(DEVICE, name="other", torch_names=("Other 1",), architecture=Architecture.CDNA)
BYTES_PER_S = STREAM_FRACTION * 1e12  # of the round device's memory
PLAN = layout(n_micro=4, data_parallel_size=8, tensor_parallel_size=8)
ONE = ParallelPlan(data_parallel_size=1)
ROW = single(workload_of(SMALL, PLAN, CLUSTER, STACK), series=-1)


def timing(seconds: float) -> Timing:
    return Timing(samples_s=(seconds,), calls_per_sample=1, median_s=seconds, low_s=seconds, high_s=seconds, confidence=0.95)


def sample(kind: ProbeKind, seconds: float, work: float, unit: WorkUnit, cache: Cache = Cache.BEYOND, **sizes: int) -> ProbeSamples:
    name = "forward and backward" if kind is ProbeKind.ATTENTION else ""
    return ProbeSamples(
        kind=kind,
        name=name,
        sizes=sizes,
        precision=Precision.BF16,
        cache=cache,
        work=work,
        work_unit=unit,
        timing=timing(seconds),
        rate_per_s=work / seconds,
        rate_low_per_s=work / seconds,
        rate_high_per_s=work / seconds,
    )


def profiled(slower: float) -> DeviceProfile:
    """Everything that a probe of one device times, `slower` times what the prior expects of the round device."""
    # 2 * 4096^3 FLOPs at 1e15 FLOP/s, and three matrices of 4096^2 two-byte numbers
    product_s = 2 * 4096**3 / 1e15 + 3 * 2 * 4096**2 / BYTES_PER_S
    by = coefficients_of(CENTER)
    attention_rate = 1e15 * float(by["attention_fraction"]) * float(by["attention_progress_per_year"]) ** 2
    probes = (
        sample(ProbeKind.MATMUL, slower * product_s, 2 * 4096**3, WorkUnit.FLOPS, m=4096, k=4096, n=4096),
        # three passes of 2e12 FLOPs are counted; a fused backward pass takes 2.5 of the forward's
        sample(ProbeKind.ATTENTION, slower * 3.5 * 2e12 / attention_rate, 6e12, WorkUnit.FLOPS, seq_len=8192),
        sample(ProbeKind.TRIAD, slower * 3e9 / BYTES_PER_S, 3e9, WorkUnit.BYTES, bytes=10**9),
        sample(ProbeKind.LAUNCH, slower * LAUNCH_S, 1, WorkUnit.CALLS),
        # 28 bytes of each parameter
        sample(ProbeKind.OPTIMIZER, slower * 28e8 / BYTES_PER_S, 1e8, WorkUnit.PARAMETERS, parameters=10**8),
    )
    return profile(probes=probes, backend=Backend.CUDA, collectives=())


def seen(slower: float) -> Observed:
    return from_profile(PRIOR, profiled(slower), DEVICE, CLUSTER)


def sliced(slower: float) -> SliceMeasurement:
    """One layer and the ends of SMALL, `slower` times what the prior expects."""
    layers, ends = (slower * float(np.exp(-one.surprise)) for one in to_be_sliced(PRIOR, SMALL, ONE, 1, DEVICE))

    def part(seconds: float) -> SlicePart:
        thirds = timing(seconds / 3), timing(2 * seconds / 3)
        return SlicePart(n_parameters=1, forward_flops=1.0, forward=thirds[0], backward=thirds[1], optimizer=timing(1.0))

    repeat = RepeatPolicy(budget_s=1.0, target_ci=0.1, confidence=0.95, min_samples=2)
    spec = SliceSpec(
        target="small_target",
        cluster="",
        model=SMALL,
        plan=ONE,
        micro_batch_size=1,
        n_layers=1,
        precision=Precision.BF16,
        seed=0,
        repeat=repeat,
        layer_flops=1.0,
        ends_flops=1.0,
        needed_bytes=1.0,
    )
    return SliceMeasurement(
        profile_version=PROFILE_VERSION,
        spec=spec,
        local=SMALL,
        n_experts_held=0,
        device_name="Round 1",
        backend=Backend.CUDA,
        threads_per_rank=1,
        environment=profile().environment,
        layers=part(layers),
        ends=part(ends),
        peak_bytes=1,
        notes=(),
    )


def compute_s(posterior: Posterior) -> float:
    return float(step_parts(ROW.work, coefficients_of(posterior.log_theta))[Part.COMPUTE][0])


def test_a_profile_as_expected_moves_nothing_and_narrows() -> None:
    observed = seen(1.0)
    assert len(observed.observations) == 5
    assert all(one.surprise == pytest.approx(0, abs=1e-12) for one in observed.observations)
    [sentence] = observed.told
    assert sentence.startswith("round alone (profile of 2026-01-01): 1 matrix products 1.00, attention over ")
    assert sentence.endswith("optimizer steps 1.00 of the speed that the prior expects")
    before, after = condition(PRIOR, None).predict(ROW), condition(PRIOR, None, observed.observations).predict(ROW)
    assert after[0] == pytest.approx(before[0], abs=1e-12)
    assert after[1] < before[1]


def test_a_slice_as_expected_moves_nothing_and_narrows() -> None:
    observed = from_slice(PRIOR, sliced(1.0), DEVICE, DEVICE)
    assert len(observed.observations) == 2
    before, after = condition(PRIOR, None).predict(ROW), condition(PRIOR, None, observed.observations).predict(ROW)
    assert after[0] == pytest.approx(before[0], abs=1e-9)
    assert after[1] < before[1]


@given(st.floats(1.01, 1.25))
@settings(max_examples=10, deadline=None)
def test_a_slower_device_slows_compute_but_not_beyond_what_was_seen(slower: float) -> None:
    before = compute_s(condition(PRIOR, None))
    for observed in (seen(slower), from_slice(PRIOR, sliced(slower), DEVICE, DEVICE)):
        assert before < compute_s(condition(PRIOR, None, observed.observations)) < slower * before


@given(st.lists(st.tuples(st.integers(0, len(NAMES) - 1), st.floats(0.8, 1.25)), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_the_order_of_evidence_does_not_matter(given_: list[tuple[int, float]]) -> None:
    found = [observation(PRIOR, "", ratio, {NAMES[i]: 1.0}, 0.1) for i, ratio in given_]
    shuffled = sorted(found, key=lambda one: one.surprise)
    first, second = (updated(CENTER, np.eye(len(NAMES)) * 0.04, tuple(order)) for order in (found, shuffled))
    assert np.allclose(first[0], second[0], atol=1e-12)
    assert np.allclose(first[1], second[1], atol=1e-12)


@given(st.integers(0, 2**16), st.integers(1, 4), st.floats(0.01, 1.0))
@settings(max_examples=30, deadline=None)
def test_narrowing_is_no_larger_than_the_share_of_what_is_informed(seed: int, n_informed: int, log_sd: float) -> None:
    generator = np.random.default_rng(seed)
    informed = generator.choice(NAMES, n_informed, replace=False)
    found = observation(PRIOR, "", 1.0, {name: float(generator.normal()) for name in informed}, log_sd)
    cold = condition(PRIOR, None)
    narrowed = cold.predict(ROW)[1] - condition(PRIOR, None, (found,)).predict(ROW)[1]
    alone = variance_by(cold, list(informed))
    assert -1e-12 <= narrowed[0] <= alone + 1e-12


def test_a_device_with_the_same_chip_learns_the_same_shares_of_its_own_datasheet_less_surely() -> None:
    for own, other in (
        (seen(1.2), from_profile(PRIOR, profiled(1.2), DEVICE, replace(CLUSTER, device=KINDRED))),
        (from_slice(PRIOR, sliced(1.2), DEVICE, DEVICE), from_slice(PRIOR, sliced(1.2), DEVICE, KINDRED)),
    ):
        assert [one.surprise for one in other.observations] == [one.surprise for one in own.observations]
        assert all(one.log_sd > same.log_sd for one, same in zip(other.observations, own.observations, strict=True))
        assert "which has the chip of kindred" in other.told[0]


def test_products_in_fp8_tell_of_their_own_rate() -> None:
    fp8 = 2e15
    device = replace(DEVICE, peak_flops_per_s=DEVICE.peak_flops_per_s | {Precision.FP8: figure(fp8)})
    device = replace(device, matmul_flops_per_s=DEVICE.matmul_flops_per_s | {Precision.FP8: figure(fp8)})
    seconds = 2 * 4096**3 / fp8 + (1 + 1 + 2) * 4096**2 / BYTES_PER_S  # operands of one byte, results of two
    product = sample(ProbeKind.MATMUL, 1.25 * seconds, 2 * 4096**3, WorkUnit.FLOPS, m=4096, k=4096, n=4096)
    alone = profile(probes=(replace(product, precision=Precision.FP8),), backend=Backend.CUDA, collectives=())
    (found,) = from_profile(PRIOR, alone, device, replace(CLUSTER, device=device)).observations
    assert found.surprise == pytest.approx(np.log(1.25))
    assert {name for name, slope in zip(NAMES, found.slopes, strict=True) if slope} == {"kernel_fraction", "fp8_fraction"}
    assert from_profile(PRIOR, alone, DEVICE, CLUSTER).observations == ()  # without a best rate to hold it against


def test_products_count_at_the_rate_that_a_device_keeps_up() -> None:
    short = profiled(1.0)
    product = next(p for p in short.probes if p.kind is ProbeKind.MATMUL)
    load = Load(what=str(product), telemetry=drawn(), rate_per_s=0.8 * product.rate_per_s, work_unit=WorkUnit.FLOPS)
    of_another_kind = replace(load, what="copy bytes=1 bf16", rate_per_s=1.0)
    kept = replace(short, loads=(of_another_kind, load))
    surprises = [[one.surprise for one in from_profile(PRIOR, p, DEVICE, CLUSTER).observations] for p in (short, kept)]
    slower = [after - before for before, after in zip(*surprises, strict=True)]
    assert slower[0] == pytest.approx(-np.log(0.8))
    assert slower[1:] == pytest.approx([0.0] * 4)


def drawn() -> DeviceTelemetry:
    return summarize("a meter", 0, "host", readings=[Reading(power_w=700.0)], energy_j=None, timed_s=1.0)


def test_what_observations_share_is_no_news_of_the_device() -> None:
    """Two products alike surprised move the rate less where a common cause may have surprised both; their difference counts in full."""
    alone = observation(PRIOR, "", 0.8, {"kernel_fraction": -1.0}, 0.1)
    shared = replace(alone, shared_log_sd=0.3)
    covariance, place = np.diag(stack_log_sds(PRIOR) ** 2), NAMES.index("kernel_fraction")
    moved = [updated(CENTER, covariance, (one, one))[0][place] - CENTER[place] for one in (alone, shared)]
    assert 0 < moved[1] < 0.2 * moved[0]
    # of two things with other slopes the difference is as sure as without what they share
    other = replace(observation(PRIOR, "", 1.0, {"expert_fraction": -1.0}, 0.1), shared_log_sd=0.3)
    center, _ = updated(CENTER, covariance, (shared, other))
    expert = NAMES.index("expert_fraction")
    assert center[place] - CENTER[place] > 0 > center[expert] - CENTER[expert]


def variance_by(posterior: Posterior, names: list[str]) -> float:
    """Variance of the row by these coefficients alone: what is lost when they are known for sure."""
    sure = tuple(observation(PRIOR, "", 1.0, {name: 1.0}, 1e-6) for name in names)
    return float(posterior.predict(ROW)[1][0] - condition(PRIOR, None, sure).predict(ROW)[1][0])


def test_another_device_leaves_everything_and_says_so() -> None:
    of_profile = from_profile(PRIOR, profiled(1.2), DEVICE, replace(CLUSTER, device=OTHER))
    of_slice = from_slice(PRIOR, sliced(1.2), DEVICE, OTHER)
    unknown = from_profile(PRIOR, profiled(1.2), None, CLUSTER)
    for observed in (of_profile, of_slice, unknown):
        assert observed.observations == ()
        assert "a device tells of its own chip" in observed.not_told[0]
    assert "Round 1" in of_profile.not_told[0]
    cold, same = condition(PRIOR, None), calibrate(PRIOR, None, None, replace(CLUSTER, device=OTHER), of_profile + of_slice)
    assert np.array_equal(cold.predict(ROW)[0], same.posterior.predict(ROW)[0])
    assert np.array_equal(cold.predict(ROW)[1], same.posterior.predict(ROW)[1])


def test_a_device_at_half_its_speed_is_another_regime() -> None:
    products = [one for one in seen(2.0).not_told if "matrix products" in one]
    assert "0.50 of the speed that the prior expects, too far to be the same regime" in products[0]


def test_memory_streams_inform_every_memory_bound_coefficient_by_their_common_part() -> None:
    memory = next(one for one in seen(1.1).observations if one.what == "memory streams")
    center, _ = updated(CENTER, np.diag(stack_log_sds(PRIOR) ** 2), (memory,))
    moved = {name: center[i] - CENTER[i] for i, name in enumerate(NAMES) if center[i] != CENTER[i]}
    # each by 0.05^2 / (0.05^2 + 0.10^2) = 0.2 of log 1.1
    assert set(moved) == {"score_bytes", "traffic_factor", "cast_bytes", "dispatch_passes", "logit_bytes"}
    assert all(value == pytest.approx(0.2 * np.log(1.1)) for value in moved.values())


def test_products_share_their_surprise_between_prior_and_transfer_noise() -> None:
    found = observation(PRIOR, "", 1.1, {"kernel_fraction": -1.0}, 0.1)
    covariance = np.diag(stack_log_sds(PRIOR) ** 2)
    center, after = updated(CENTER, covariance, (found,))
    place = NAMES.index("kernel_fraction")
    own, noise = PRIOR.coefficients["kernel_fraction"].stack_log_sd ** 2, 0.01
    assert center[place] - CENTER[place] == pytest.approx(-np.log(1.1) * own / (own + noise))
    assert after[place, place] == pytest.approx(own * noise / (own + noise))


def test_what_is_left_of_a_cause_shrinks_with_its_evidence() -> None:
    sure: tuple[Observation, ...] = (observation(PRIOR, "", 1.0, {"kernel_fraction": 1.0}, 1e-6),)
    cold, known = (causes_of(condition(PRIOR, None, seen_), ROW) for seen_ in ((), sure))
    before, after = ({c.cause: c.log_sd for c in causes}["compute efficiency"] for causes in (cold, known))
    assert after < before
