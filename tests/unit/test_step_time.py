"""Parts of a step against seconds worked by hand, with every fraction of the prior at 1."""

from dataclasses import replace

import numpy as np
import pytest

from bench.cost.draws import medians
from bench.cost.flops import Convention, head_flops_per_token, layer_flops_per_token
from bench.cost.layout import Layout
from bench.cost.step_time import Job, data_parallel_s, expected_maximum, matmul_flops_per_s, step_parts, step_s
from bench.errors import UsageError
from bench.facts.model import ModelShape
from bench.facts.plan import Recompute, Sharding
from bench.facts.prediction import Part
from tests.round_numbers import CLUSTER, DEVICE, PRIOR, SMALL, TINY_EXPERTS, layout, parameter


def parts(plan: Layout, shape: ModelShape = SMALL) -> dict[Part, float]:
    job = Job(shape=shape, layout=plan, cluster=CLUSTER, draws=medians(PRIOR, DEVICE.name))
    return {part: float(seconds) for part, seconds in step_parts(job).items()}


LAYER = layer_flops_per_token(SMALL, Convention.CAUSAL)
HEAD = head_flops_per_token(SMALL)


def test_compute_is_three_forwards_and_as_much_other_work() -> None:
    # 2 micro-batches of 1,024 tokens at 1e15 FLOP/s, doubled by other work
    expected = 2 * 1024 * 3 * (8 * LAYER + HEAD) / 1e15 * 2
    assert parts(layout(n_micro=2))[Part.COMPUTE] == pytest.approx(expected)


def test_one_device_only_computes_and_steps() -> None:
    seconds = parts(layout())
    idle = set(Part) - {Part.COMPUTE, Part.OPTIMIZER}
    assert [part for part in idle if seconds[part] != 0] == []


def test_full_recomputation_is_one_forward_of_the_layers() -> None:
    seconds = parts(layout(recompute=Recompute.FULL))
    assert seconds[Part.RECOMPUTE] == pytest.approx(1024 * 8 * LAYER / 1e15 * 2)


def test_selective_recomputation_is_the_attention_core() -> None:
    # per token and layer 2 * seq_len * d_model FLOPs, the causal half of 4
    seconds = parts(layout(recompute=Recompute.SELECTIVE))
    assert seconds[Part.RECOMPUTE] == pytest.approx(1024 * 8 * 2 * 1024 * 1024 / 1e15 * 2)


def test_tensor_parallelism_reduces_four_times_a_layer() -> None:
    # 1,024 tokens * 1,024 * 2 bytes = 2 MiB; an all-reduce over 2 ranks moves 2 MiB at 100 GB/s and waits 2 us
    once = 2 * (0.5 * 2**21 / 100e9 + 1e-6)
    assert parts(layout(tensor_parallel_size=2))[Part.TENSOR_PARALLEL] == pytest.approx(8 * 4 * once)


def test_context_parallelism_gathers_keys_and_values_three_times() -> None:
    # keys and values of 1,024 tokens: 2 * 1024 * 1024 * 2 bytes = 4 MiB, half of it from the other rank, 1 us
    assert parts(layout(context_parallel_size=2))[Part.CONTEXT_PARALLEL] == pytest.approx(8 * 3 * (2**21 / 100e9 + 1e-6))


def test_expert_parallelism_exchanges_four_times_a_layer() -> None:
    # 16 tokens to 2 experts, 4 columns of 2 bytes = 256 bytes, half to the other rank
    plan = layout(data_parallel_size=2, expert_parallel_size=2)
    assert parts(plan, TINY_EXPERTS)[Part.EXPERT_PARALLEL] == pytest.approx(4 * 4 * (128 / 100e9 + 1e-6))


def test_slow_expert_kernels_slow_only_the_experts() -> None:
    prior = replace(PRIOR, expert_kernel_fraction=parameter(0.5))
    fast, slow = (Job(shape=TINY_EXPERTS, layout=layout(), cluster=CLUSTER, draws=medians(p, "round")) for p in (PRIOR, prior))
    # two experts of 96 parameters, 4 layers, 16 tokens: 3 * 2 * 96 * 2 FLOPs more each, doubled by other work
    extra = step_parts(slow)[Part.COMPUTE] - step_parts(fast)[Part.COMPUTE]
    assert extra == pytest.approx(16 * 4 * 3 * 2 * 96 * 2 / 1e15 * 2)


def test_plain_pipeline_waits_for_its_sends() -> None:
    # 2 stages, 4 micro-batches: 2 * (1 + 4) sends of 2 MiB; 2 devices share a domain
    seconds = parts(layout(n_micro=4, pipeline_parallel_size=2))
    assert seconds[Part.PIPELINE_SEND] == pytest.approx(10 * (2**21 / 100e9 + 1e-6))


def test_interleaved_pipeline_hides_them_but_for_the_ends() -> None:
    seconds = parts(layout(n_micro=4, pipeline_parallel_size=2, n_virtual_stages=2))
    assert seconds[Part.PIPELINE_SEND] == pytest.approx(2 * (2**21 / 100e9 + 1e-6))


def test_data_parallel_traffic_is_gradients_and_weights() -> None:
    # 2 ranks in a domain, 1e15-fold pass to hide behind: exposed fraction 1 of (4 + 2) bytes * n / 2 at 100 GB/s + 2 us
    job = Job(shape=SMALL, layout=layout(data_parallel_size=2, sharding=Sharding.ZERO1), cluster=CLUSTER, draws=medians(PRIOR, "round"))
    n_parameters = 8 * (4 * 1024**2 + 3 * 1024 * 2730 + 2 * 1024) + 2 * 1024**2 + 1024
    assert data_parallel_s(job, np.asarray(1e15)) == pytest.approx(6 * n_parameters / 2 / 100e9 + 2e-6)


def test_traffic_longer_than_a_pass_cannot_hide() -> None:
    prior = replace(PRIOR, exposed_data_parallel_fraction=parameter(0.01))
    job = Job(shape=SMALL, layout=layout(data_parallel_size=2), cluster=CLUSTER, draws=medians(prior, "round"))
    whole = float(data_parallel_s(job, np.asarray(0.0)))
    assert data_parallel_s(job, np.asarray(0.25 * whole)) == pytest.approx(0.75 * whole)
    assert data_parallel_s(job, np.asarray(whole)) == pytest.approx(0.01 * whole)


def test_zero3_gathers_weights_twice_in_every_pass() -> None:
    def traffic(sharding: Sharding) -> float:
        plan = layout(n_micro=3, data_parallel_size=2, sharding=sharding)
        return float(data_parallel_s(Job(shape=SMALL, layout=plan, cluster=CLUSTER, draws=medians(PRIOR, "round")), np.asarray(0.0)))

    # bytes per parameter: 4 + 2 once against 3 passes of 4 + 2 * 2; the latencies of 1 us each come with them
    assert traffic(Sharding.ZERO3) == pytest.approx(3 * (traffic(Sharding.ZERO1) - 2e-6) / 6 * 8 + 3 * 3e-6)


def test_optimizer_streams_thirty_bytes_per_parameter_it_owns() -> None:
    n_parameters = 8 * (4 * 1024**2 + 3 * 1024 * 2730 + 2 * 1024) + 2 * 1024**2 + 1024
    assert parts(layout())[Part.OPTIMIZER] == pytest.approx(30 * n_parameters / 1e12)
    assert parts(layout(data_parallel_size=4, sharding=Sharding.ZERO1))[Part.OPTIMIZER] == pytest.approx(30 * n_parameters / 4 / 1e12)


def test_stragglers_cost_the_expected_maximum_of_the_spread() -> None:
    prior = replace(PRIOR, step_spread_fraction=parameter(0.02))
    job = Job(shape=SMALL, layout=layout(data_parallel_size=64), cluster=CLUSTER, draws=medians(prior, "round"))
    seconds = step_parts(job)
    own = float(seconds[Part.COMPUTE] + seconds[Part.OPTIMIZER])
    # the mean maximum of 64 standard normals is 2.34 (Blom's formula)
    assert seconds[Part.STRAGGLER] / own == pytest.approx(0.02 * 2.34, rel=2e-3)


def test_expected_maximum_of_one_is_nothing() -> None:
    assert expected_maximum(np.asarray(1.0)) == 0


@pytest.mark.parametrize(("n", "known"), [(2, 0.5642), (10, 1.5388), (100, 2.5076), (1000, 3.2414)])
def test_expected_maximum_is_that_of_the_tables(n: int, known: float) -> None:
    """Source: Harter 1961, Expected values of normal order statistics."""
    assert expected_maximum(np.asarray(float(n))) == pytest.approx(known, rel=0.05)


def test_stack_scales_everything() -> None:
    slow = replace(PRIOR, stack_fraction=parameter(1.5))
    jobs = [Job(shape=SMALL, layout=layout(n_micro=2), cluster=CLUSTER, draws=medians(p, "round")) for p in (PRIOR, slow)]
    assert step_s(jobs[1]) == pytest.approx(1.5 * step_s(jobs[0]))


def test_device_without_a_measured_rate_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"round has no matmul_flops_per_s\.bf16"):
        matmul_flops_per_s(replace(DEVICE, matmul_flops_per_s={}))
