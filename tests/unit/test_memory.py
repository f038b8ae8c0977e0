"""Memory against bytes counted by hand, and against memory that runs were seen to reserve."""

from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest

from bench.config.compose import devices
from bench.cost.layout import Layout, batch_of, plan_of
from bench.cost.memory import (
    bytes_per_parameter,
    first_stage_reserved_bytes,
    kept_bytes_per_token,
    memory,
    run_bytes,
    stage_bytes,
    total_bytes,
)
from bench.cost.pipeline import balanced_layers
from bench.cost.stack_memory import EAGER, FUSED, NEED_LOG_SD, stack_memory
from bench.facts.hardware import Precision
from bench.facts.model import ModelShape
from bench.facts.plan import Recompute, Sharding
from bench.facts.prediction import MemoryEstimate
from bench.facts.stack import Stack, StackFamily
from bench.facts.units import GIB
from tests.round_numbers import TINY, TINY_EXPERTS, layout

STACK = Stack(
    name="eager",
    family=StackFamily.TORCH,
    year=2025,
    compiled=False,
    fused_attention=True,
    sequence_parallel=True,
    balanced_stages=True,
    zero_bubble=False,
    hides_gradients=True,
    hides_zero1=False,
    gradient_bytes=4,
    source="round number",
)


@pytest.mark.parametrize(
    ("sharding", "expected"),
    # 2 + 4 + 12 whole; the optimizer's 12 over 4 ranks; all 18 over 4 ranks
    [(Sharding.NONE, 18), (Sharding.ZERO1, 9), (Sharding.ZERO3, 4.5)],
)
def test_bytes_per_parameter_by_what_is_shared(sharding: Sharding, expected: float) -> None:
    assert bytes_per_parameter(layout(data_parallel_size=4, sharding=sharding), np.asarray(4.0)) == expected


def test_state_of_one_device_is_eighteen_bytes_per_parameter() -> None:
    # 4 layers of 168, embedding 40, head 40 (the last norm of 4 is not worth its line): 752 * 18
    state, _ = stage_bytes(TINY, layout())
    assert state == 752 * 18


def test_state_of_a_stage_holds_its_layers_and_one_end() -> None:
    state, _ = stage_bytes(TINY, layout(n_micro=8, pipeline_parallel_size=2))
    assert state == (2 * 168 + 40) * 18


def test_uneven_stages_are_counted_by_the_larger() -> None:
    # 4 layers on 3 stages: 2 on the first
    state, _ = stage_bytes(replace(TINY, seq_len=1024), layout(n_micro=8, pipeline_parallel_size=3))
    assert state == (2 * 168 + 40) * 18


def test_experts_are_dealt_out_within_the_data_axis() -> None:
    # A layer: attention 64, norms 8, router 16 = 88 whole; 4 experts of 96, of which one here. ZeRO-1 over 4 replicas:
    # 9 bytes; an expert has one replica: 18 bytes.
    state, _ = stage_bytes(TINY_EXPERTS, layout(data_parallel_size=4, expert_parallel_size=4, sharding=Sharding.ZERO1))
    assert state == (4 * 88 + 80) * 9 + 4 * 96 * 18


def test_tensor_parallelism_divides_state_and_activations() -> None:
    one, two = stage_bytes(TINY, layout()), stage_bytes(TINY, layout(tensor_parallel_size=2))
    assert two[0] == one[0] / 2
    assert two[1] == one[1] / 2


@pytest.mark.parametrize(
    ("recompute", "expected"),
    # bf16: two norms in and out 4 * 4, q k v and output 4 * 4, three columns of 8: 2 * (16 + 16 + 24) = 112;
    # without the attention output 2 * 4 less; the input of the layer alone 2 * 4
    [(Recompute.NONE, 112), (Recompute.SELECTIVE, 104), (Recompute.FULL, 8)],
)
def test_kept_bytes_by_recomputation(recompute: Recompute, expected: float) -> None:
    assert kept_bytes_per_token(TINY, layout(recompute=recompute)) == expected


def test_activations_of_one_device() -> None:
    # 16 tokens: 4 layers of 112, 2 live layers, 10 logits of 8 bytes
    _, activations = stage_bytes(TINY, layout())
    assert activations == 16 * (4 * 112 + 2 * 112 + 80)


def test_first_stage_keeps_what_is_in_flight() -> None:
    # 2 stages of 2 layers, 2 micro-batches in flight: 16 * (2 * 2 * 112 + 2 * 112), and no logits
    _, activations = stage_bytes(TINY, layout(n_micro=8, pipeline_parallel_size=2))
    assert activations == 16 * (4 * 112 + 224)


def test_logits_can_make_the_last_stage_the_fullest() -> None:
    wide = replace(TINY, vocab_size=1000)
    _, activations = stage_bytes(wide, layout(n_micro=8, pipeline_parallel_size=2))
    assert activations == 16 * (2 * 112 + 224 + 8000)


def test_estimate_adds_context_and_fragmentation() -> None:
    plan = layout()
    estimate = memory(LLAMA_70B, plan_of(plan), batch_of(plan), devices()[0])
    held = estimate.state_bytes + estimate.activation_bytes
    assert estimate.overhead_bytes == pytest.approx(2 * GIB + 0.05 * held)
    assert estimate.total_bytes == pytest.approx(float(total_bytes(LLAMA_70B, plan)))


def of_need(total: float) -> MemoryEstimate:
    return MemoryEstimate(state_bytes=total, activation_bytes=0, overhead_bytes=0, capacity_bytes=80, need_log_sd=NEED_LOG_SD)


def test_chance_to_fit_is_a_half_at_the_capacity_and_falls_with_the_need() -> None:
    # one standard deviation of the logarithm below and above: 84.1 and 15.9 %
    assert of_need(80).fits_probability == 0.5
    assert of_need(80 * np.exp(-NEED_LOG_SD)).fits_probability == pytest.approx(0.8413, abs=1e-4)
    assert of_need(80 * np.exp(NEED_LOG_SD)).fits_probability == pytest.approx(0.1587, abs=1e-4)


def test_verdict_and_chance_agree() -> None:
    assert [of_need(need).fits for need in (79, 81)] == [of_need(need).fits_probability > 0.5 for need in (79, 81)] == [True, False]


@pytest.mark.parametrize(
    ("n_layers", "head_layers", "pp", "expected"),
    # A head of 4 layers beside 16: 20 in all. On 2 stages 10 each: 10 and 6. On 4 stages 5 each: 5 and 1. On 8 stages 2.5 each:
    # the first closes at 3, the seventh at 18, beyond the last layer: the last holds the head alone. One stage holds all.
    [(16, 4.0, 1, (16, 16)), (16, 4.0, 2, (10, 6)), (16, 4.0, 4, (5, 1)), (16, 4.0, 8, (3, 0)), (2, 0.0, 4, (1, 0))],
)
def test_balanced_stages_close_when_their_share_of_the_cost_is_reached(
    n_layers: int, head_layers: float, pp: int, expected: tuple[int, int]
) -> None:
    assert balanced_layers(n_layers, head_layers, np.asarray(float(pp))) == expected


def test_eager_state_has_a_second_gradient() -> None:
    # 2 + 4 + 2 + 12; the optimizer's 12 over 4 ranks
    whole, shared = (layout(data_parallel_size=4, sharding=sharding) for sharding in (Sharding.NONE, Sharding.ZERO1))
    assert bytes_per_parameter(whole, np.asarray(4.0), EAGER) == 20
    assert bytes_per_parameter(shared, np.asarray(4.0), EAGER) == 11


def test_hybrid_sharding_shares_among_the_ranks_of_one_copy() -> None:
    # 8 ranks in 2 copies: shards over 4
    plan = layout(data_parallel_size=8, data_parallel_replicate_size=2, sharding=Sharding.ZERO3)
    assert bytes_per_parameter(plan, plan.replicas) == 18 / 4


def test_eager_layer_keeps_rotated_and_activated_values_too() -> None:
    # beyond the 112 of fused kernels: q, k and output 3 * 4, activation 8, in bf16
    assert kept_bytes_per_token(TINY, layout(), EAGER) == 112 + 2 * 20


def test_eager_layer_without_a_gate_has_no_activated_gate() -> None:
    # without the third column of 8: 96; q, k and output 3 * 4 on top
    assert kept_bytes_per_token(replace(TINY, gated=False), layout(), EAGER) == 96 + 2 * 12


def test_eager_layer_is_22_times_its_width_and_8_times_its_columns() -> None:
    wide = replace(TINY, d_model=256, head_dim=128, d_ff=1024)
    assert kept_bytes_per_token(wide, layout(), EAGER) == 22 * 256 + 8 * 1024


def test_gathered_rows_are_not_divided_by_tensor_parallelism() -> None:
    # 16 tokens; on 2 ranks half of (4 + 1) layers of 152 and of 10 logits of 12 bytes, and whole rows of 4 columns: 8 bytes, and
    # EAGER.waiting_bytes in each of 4 layers
    _, activations = stage_bytes(TINY, layout(tensor_parallel_size=2), EAGER)
    assert activations == pytest.approx(16 * ((5 * 152 + 120) / 2 + 4 * (8 + 4 * EAGER.waiting_bytes)))


def test_reserved_memory_is_that_of_the_first_stage() -> None:
    # 10 logits on the last of 2 stages do not show: 2 layers, 2 micro-batches in flight, one live layer; EAGER deals 4 layers and a
    # head of 40 / 160 as 3 and 1
    plan = layout(n_micro=8, pipeline_parallel_size=2)
    held = (3 * 168 + 40) * 20 + 16 * (3 * 2 * 152 + 152)
    expected = held * (1 + EAGER.reserved_fraction) + EAGER.reserved_bytes
    assert first_stage_reserved_bytes(TINY, plan, EAGER) == pytest.approx(expected)


def test_only_uncompiled_torch_with_fp32_gradients_is_eager() -> None:
    assert stack_memory(STACK) is EAGER
    assert stack_memory(replace(STACK, gradient_bytes=2)) is FUSED
    assert stack_memory(replace(STACK, compiled=True)) is FUSED
    assert stack_memory(replace(STACK, family=StackFamily.MEGATRON)) is FUSED


def test_a_hundred_thousand_plans_take_half_a_second_at_most() -> None:
    sizes = 2.0 ** np.random.default_rng(0).integers(0, 4, (7, 100_000))
    names = ("dp", "tp", "pp", "cp", "micro_batch", "n_micro", "n_virtual")
    kinds = {"ep": np.asarray(1.0), "sharding": np.asarray(1.0), "recompute": np.asarray(0.0)}
    plans = Layout(**dict(zip(names, sizes, strict=True)), **kinds)
    start = perf_counter()
    total_bytes(LLAMA_70B, plans, EAGER)
    assert perf_counter() - start < 0.5


LLAMA_70B = ModelShape(
    name="llama", n_layers=12, d_model=8192, n_heads=64, n_kv_heads=8, head_dim=128, d_ff=28672, vocab_size=128256, seq_len=4096
)
LLAMA_405B = replace(LLAMA_70B, n_layers=4, d_model=16384, n_heads=128, d_ff=53248)


@pytest.mark.parametrize(
    ("shape", "tp", "pp", "reserved_gib"),
    [
        (LLAMA_70B, 1, 2, 70.88),
        (LLAMA_70B, 2, 1, 62.53),
        (LLAMA_70B, 4, 1, 40.18),
        (LLAMA_70B, 8, 1, 29.12),
        (LLAMA_405B, 1, 2, 92.26),
        (LLAMA_405B, 2, 1, 84.70),
        (LLAMA_405B, 4, 1, 54.65),
        (LLAMA_405B, 8, 1, 39.83),
    ],
)
def test_estimate_is_near_what_runs_reserved(shape: ModelShape, tp: int, pp: int, reserved_gib: float) -> None:
    """Source: MooreThreads/SimuMax docs/b200 at 4dcaae5, Megatron-LM on 8 B200, 32 micro-batches, distributed optimizer."""
    plan = layout(n_micro=32, data_parallel_size=8 // tp // pp, tensor_parallel_size=tp, pipeline_parallel_size=pp, sharding=Sharding.ZERO1)
    assert float(first_stage_reserved_bytes(shape, plan)) / GIB == pytest.approx(reserved_gib, rel=0.10)


def test_local_run_holds_sixteen_bytes_per_parameter() -> None:
    # 756 parameters; per sequence 16 tokens * ((4 + 2) layers * 112 + 80), activations twice as wide in fp32
    assert run_bytes(TINY, 1, Precision.BF16) == 756 * 16 + 16 * (6 * 112 + 80)
    assert run_bytes(TINY, 2, Precision.FP32) == 756 * 16 + 2 * 16 * (2 * 6 * 112 + 80)
