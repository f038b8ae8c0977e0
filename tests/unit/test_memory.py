"""Memory against bytes counted by hand, and against memory that runs were seen to reserve."""

from dataclasses import replace

import numpy as np
import pytest

from bench.cost.layout import batch_of, plan_of
from bench.cost.memory import bytes_per_parameter, kept_bytes_per_token, memory, run_bytes, stage_bytes, total_bytes
from bench.facts.hardware import Precision
from bench.facts.model import ModelShape
from bench.facts.plan import Recompute, Sharding
from bench.facts.units import GIB
from tests.round_numbers import DEVICE, SMALL, TINY, TINY_EXPERTS, layout


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
    estimate = memory(SMALL, plan_of(plan), batch_of(plan), DEVICE)
    held = estimate.state_bytes + estimate.activation_bytes
    assert estimate.overhead_bytes == pytest.approx(2 * GIB + 0.05 * held)
    assert estimate.total_bytes == pytest.approx(float(total_bytes(SMALL, plan)))
    assert estimate.fits


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
    assert float(total_bytes(shape, plan)) / GIB == pytest.approx(reserved_gib, rel=0.10)


def test_local_run_holds_sixteen_bytes_per_parameter() -> None:
    # 756 parameters; per sequence 16 tokens * ((4 + 2) layers * 112 + 80), activations twice as wide in fp32
    assert run_bytes(TINY, 1, Precision.BF16) == 756 * 16 + 16 * (6 * 112 + 80)
    assert run_bytes(TINY, 2, Precision.FP32) == 756 * 16 + 2 * 16 * (2 * 6 * 112 + 80)
