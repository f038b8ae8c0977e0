"""Seconds of a step by hand: coefficients of 1, nothing hidden, round rates.

SMALL: 8 layers, d_model 1,024, 8 heads of 128, feed-forward 2,730 gated, vocabulary 1,024, sequences of 1,024. The device computes
1e15 FLOP/s and moves 0.8 of 1e12 bytes/s; links give 100e9 bytes/s in a domain of 8 devices and 10e9 bytes/s a device beyond.
"""

from dataclasses import replace

import numpy as np
import pytest

from bench.cost.data_parallel import data_parallel_s, local_parameters, optimizer_s
from bench.cost.layer import context_parallel_s, expert_parallel_s, head_s, layer_of, tensor_parallel_s
from bench.cost.links import HEALTHY_STEP_S, links_of
from bench.cost.step_time import log_device_s_per_token, pipeline_send_s, software_factor, step_parts, step_s
from bench.cost.workload import matmul_flops_per_s, workload_of
from bench.errors import UsageError
from bench.facts.hardware import Architecture, Precision
from bench.facts.model import ModelShape
from bench.facts.plan import Recompute, Sharding
from bench.facts.prediction import Part
from bench.facts.stack import StackFamily
from tests.round_numbers import CLUSTER, DEVICE, SMALL, STACK, coefficients, figure, layout, work_of

BY = coefficients()
TOKENS, D, FF = 1024, 1024, 2730
MEMORY = 0.8e12
LAYER = 4 * D * D + 3 * D * FF  # weights of a layer, norms left out


def products_s(tp: int = 1, tokens: int = TOKENS) -> float:
    """2 FLOPs a weight and token over 1e15, and the bytes of the inputs and outputs of four products."""
    inputs = 4 * D + (2 * D + 2 * D + 1.5 * 2 * FF) / tp
    return tokens * 2 * LAYER / tp / 1e15 + 2 * tokens * inputs / MEMORY


def weights_s(tp: int = 1) -> float:
    """Reading them once in bf16; a pass reads them twice, and reads and writes a gradient of 4 bytes."""
    return 2 * (LAYER + 2 * D) / tp / MEMORY


def layer_s() -> float:
    return 3 * products_s() + (2 + 2 * 4 / 2) * weights_s() + 3.5 * attention_s()


def head_by_hand_s(tables: int) -> float:
    """Three products, and the bytes of the head's weights; of the embedding's too where there are two tables."""
    return 3 * TOKENS * 2 * 1024 * D / 1e15 + tables * 12 * 1024 * D / MEMORY


def attention_s(tp: int = 1) -> float:
    """Half of 4 FLOPs a column, key and token."""
    return TOKENS * 2 * TOKENS * D / tp / 1e15


def test_a_layer_is_three_times_its_products_and_three_and_a_half_its_attention() -> None:
    layer = layer_of(work_of(layout()), BY)
    assert layer.compute_s == pytest.approx(layer_s())
    assert layer.recompute_s == 0
    assert layer.total_s == pytest.approx(float(layer.compute_s))
    assert layer.launch_s == pytest.approx(0, abs=1e-15)


def test_full_recompute_is_one_more_forward_pass() -> None:
    layer = layer_of(work_of(layout(recompute=Recompute.FULL)), BY)
    assert layer.recompute_s == pytest.approx(products_s() + weights_s() + attention_s(), rel=1e-6)


def test_selective_recompute_is_free_where_scores_are_not_stored() -> None:
    stored = replace(STACK, fused_attention=False)
    assert layer_of(work_of(layout(recompute=Recompute.SELECTIVE)), BY).recompute_s == 0
    assert layer_of(work_of(layout(recompute=Recompute.SELECTIVE), stack=stored), BY).recompute_s == pytest.approx(attention_s())


def test_a_small_layer_takes_what_launching_it_takes() -> None:
    # two times side by side count with the fourth root of the sum of fourth powers
    layer = layer_of(work_of(layout()), coefficients(launch_floor_s=1.0))
    assert layer.total_s == pytest.approx(1.0)
    assert layer.launch_s == pytest.approx(1.0 - float(layer.compute_s))
    same = float(layer.compute_s)
    assert layer_of(work_of(layout()), coefficients(launch_floor_s=same)).total_s == pytest.approx(same * 2**0.25)


def test_bytes_outside_products_count_norms_by_model_columns() -> None:
    # 44 + 8 bytes a model column and 10 a feed-forward column, 2,730 of them twice
    traffic = TOKENS * (52 * D + 10 * 2 * FF) / MEMORY
    with_traffic = layer_of(work_of(layout()), coefficients(traffic_factor=1.0)).compute_s
    assert with_traffic - layer_of(work_of(layout()), BY).compute_s == pytest.approx(traffic)


def test_norms_are_split_only_with_sequence_parallelism() -> None:
    by = coefficients(traffic_factor=1.0)
    whole = replace(STACK, sequence_parallel=False)
    plan = layout(tensor_parallel_size=4)
    extra = layer_of(work_of(plan, stack=whole), by).compute_s - layer_of(work_of(plan), by).compute_s
    assert extra == pytest.approx(TOKENS * 44 * D * 3 / 4 / MEMORY)


def test_the_head_is_three_products_and_moves_its_weights_and_the_embeddings() -> None:
    assert head_s(work_of(layout()), BY) == pytest.approx(head_by_hand_s(tables=2), rel=1e-6)
    assert head_s(work_of(layout(pipeline_parallel_size=2)), BY) == pytest.approx(head_by_hand_s(tables=1), rel=1e-6)


def test_gradients_of_half_the_bytes_are_added_in_half_the_time() -> None:
    half = work_of(layout(), stack=replace(STACK, gradient_bytes=2))
    saved = layer_of(work_of(layout()), BY).compute_s - layer_of(half, BY).compute_s
    assert saved == pytest.approx(2 * weights_s())


def test_fp8_changes_products_and_not_attention() -> None:
    fast = work_of(layout(), is_narrow=1.0, linear_flops_per_s=2e15)
    gained = layer_of(work_of(layout()), BY).compute_s - layer_of(fast, BY).compute_s
    assert gained == pytest.approx(3 * TOKENS * 2 * LAYER / 1e15 / 2)


def test_fp4_is_fp8_on_faster_units_with_a_factor_of_its_own() -> None:
    device = replace(DEVICE, matmul_flops_per_s={Precision.BF16: figure(1e15), Precision.FP8: figure(2e15), Precision.FP4: figure(4e15)})

    def compute_s(precision: Precision, **changed: float) -> float:
        work = workload_of(SMALL, layout(), replace(CLUSTER, device=device), STACK, precision)
        return float(layer_of(work, coefficients(**changed)).compute_s)

    once = 3 * TOKENS * 2 * LAYER
    assert compute_s(Precision.FP8) - compute_s(Precision.FP4) == pytest.approx(once / 2e15 - once / 4e15)
    assert compute_s(Precision.FP4, fp4_factor=0.5) == pytest.approx(compute_s(Precision.FP8))
    assert compute_s(Precision.FP8, fp4_factor=0.5) == compute_s(Precision.FP8)


@pytest.mark.parametrize("architecture", [Architecture.VOLTA, Architecture.AMPERE, Architecture.BLACKWELL, Architecture.CDNA])
def test_an_architecture_has_a_factor_of_its_own(architecture: Architecture) -> None:
    other = replace(CLUSTER, device=replace(DEVICE, architecture=architecture))
    half = coefficients(**{f"kernel_factor_{architecture.value}": 0.5})
    assert layer_of(work_of(layout(), cluster=other), half).compute_s > layer_of(work_of(layout(), cluster=other), BY).compute_s
    assert layer_of(work_of(layout()), half).compute_s == layer_of(work_of(layout()), BY).compute_s


def test_tensor_parallelism_is_eight_halves_of_an_all_reduce() -> None:
    # 1,024 tokens x 1,024 columns x 2 bytes, 3/4 of them over 100e9 bytes/s
    work = work_of(layout(tensor_parallel_size=4))
    assert tensor_parallel_s(work, BY, links_of(work, BY)) == pytest.approx(8 * TOKENS * D * 2 * 0.75 / 100e9, rel=1e-6)


def test_a_stack_that_overlaps_tensor_parallelism_shows_less_of_it() -> None:
    experts = replace(SMALL, name="experts", n_experts=4, experts_top_k=1, d_ff_expert=FF, d_ff=0)
    by, quarter = coefficients(), coefficients(overlapped_tensor_factor=0.25)

    def seen(shape: ModelShape, tp: int = 4, **changed: float) -> float:
        """Share of the traffic that is left once a quarter of what may be overlapped is exposed."""
        work = work_of(layout(tensor_parallel_size=tp), shape=shape, **changed)
        both = [float(tensor_parallel_s(work, b, links_of(work, b))) for b in (quarter, by)]
        return both[0] / both[1]

    assert seen(SMALL) == 1  # a stack that does not
    assert seen(SMALL, overlaps_tensor=1.0) == pytest.approx(0.25)
    assert seen(experts, overlaps_tensor=1.0) == 1
    assert seen(SMALL, overlaps_tensor=1.0, is_fp4=1.0) == 1
    assert seen(SMALL, tp=16, overlaps_tensor=1.0) == 1  # two domains


def test_tensor_parallelism_across_domains_waits_once_per_domain_and_call() -> None:
    # 32 ranks lie in 4 domains of 8: three crossings, eight calls
    by = coefficients(tensor_crossing_s=1.0)
    work = work_of(layout(tensor_parallel_size=32))
    assert tensor_parallel_s(work, by, links_of(work, by)) == pytest.approx(8 * 3, rel=1e-3)


def test_context_parallelism_gathers_keys_and_values_three_times() -> None:
    # keys and values of the whole sequence: 1,024 x 2 x 1,024 x 2 bytes, half of them over the scale-up link
    work = work_of(layout(context_parallel_size=2))
    assert context_parallel_s(work, BY, links_of(work, BY)) == pytest.approx(3 * 1024 * 2048 * 2 / 2 / 100e9, rel=1e-6)


EXPERTS = replace(SMALL, name="experts", d_ff=0, n_experts=16, experts_top_k=2, d_ff_expert=2730)


def test_experts_beyond_the_domain_pay_the_network() -> None:
    # 2 copies of 1,024 x 1,024 x 2 bytes; of 16 ranks 8 are near: half leaves at 10e9 bytes/s, four times
    far = work_of(layout(data_parallel_size=16, expert_parallel_size=16), EXPERTS)
    assert expert_parallel_s(far, BY, links_of(far, BY)) == pytest.approx(4 * 2 * TOKENS * D * 2 / 2 / 10e9, rel=1e-6)
    near = work_of(layout(data_parallel_size=8, expert_parallel_size=8), EXPERTS)
    assert expert_parallel_s(near, BY, links_of(near, BY)) == pytest.approx(4 * 2 * TOKENS * D * 2 * 7 / 8 / 100e9, rel=1e-6)


def test_oversubscription_slows_what_experts_send() -> None:
    plan = layout(data_parallel_size=16, expert_parallel_size=16)
    free, narrow = work_of(plan, EXPERTS), work_of(plan, EXPERTS, oversubscription=2.0)
    assert expert_parallel_s(narrow, BY, links_of(narrow, BY)) == pytest.approx(2 * float(expert_parallel_s(free, BY, links_of(free, BY))))


def test_parameters_of_a_device_are_shared_by_tensor_pipeline_and_experts() -> None:
    per_layer = 4 * D * D + 2 * D + 16 * D  # attention, norms, router
    ends = 2 * 1024 * D
    plan = layout(data_parallel_size=4, tensor_parallel_size=2, pipeline_parallel_size=4, expert_parallel_size=4)
    assert local_parameters(work_of(plan, EXPERTS)) == pytest.approx((8 * (per_layer + 16 * 3 * D * FF / 4) / 4 + ends / 2) / 2)


def test_copied_gradients_are_reduced_over_all_ports_of_a_node() -> None:
    # 16 ranks in two nodes: a ring that leaves each node through 8 ports of 10e9 bytes/s; 4 bytes a gradient, there and back
    work = work_of(layout(data_parallel_size=16))
    size = 4 * float(local_parameters(work))
    assert data_parallel_s(work, BY, np.asarray(1e-9)) == pytest.approx(2 * size * 15 / 16 / 80e9, rel=1e-3)


def test_gradients_hide_behind_the_last_backward_pass() -> None:
    by = coefficients(hidden_gradient_fraction=1.0)
    work = work_of(layout(data_parallel_size=16))
    assert data_parallel_s(work, by, np.asarray(1000.0)) == pytest.approx(0, abs=1e-9)
    proud = work_of(layout(data_parallel_size=16), stack=replace(STACK, hides_gradients=False))
    assert data_parallel_s(proud, by, np.asarray(1000.0)) == pytest.approx(float(data_parallel_s(work, BY, np.asarray(1e-9))), rel=1e-3)


def test_chunks_give_gradients_a_head_start() -> None:
    by = coefficients(hidden_gradient_fraction=1.0)
    plain = layout(n_micro=8, data_parallel_size=64, pipeline_parallel_size=4)
    chunked = layout(n_micro=8, data_parallel_size=64, pipeline_parallel_size=4, n_virtual_stages=2)
    beat = np.asarray(2e-3)
    assert data_parallel_s(work_of(chunked), by, beat) < data_parallel_s(work_of(plain), by, beat)


def test_sharded_weights_travel_three_times_per_pass() -> None:
    # two gathers of bf16 weights and a scatter of fp32 gradients over the scale-up link, for each of two passes
    plan = layout(n_micro=2, data_parallel_size=8, sharding=Sharding.ZERO3)
    size = 8 * float(local_parameters(work_of(plan)))
    assert data_parallel_s(work_of(plan), BY, np.asarray(1e-9)) == pytest.approx(2 * size * 7 / 8 / 100e9, rel=1e-3)


def test_hybrid_sharding_leaves_its_group_once_per_step() -> None:
    whole = layout(n_micro=8, data_parallel_size=64, sharding=Sharding.ZERO3)
    hybrid = layout(n_micro=8, data_parallel_size=64, data_parallel_replicate_size=8, sharding=Sharding.ZERO3)
    assert work_of(hybrid).shard_ranks == 8
    assert data_parallel_s(work_of(hybrid), BY, np.asarray(1e-9)) < data_parallel_s(work_of(whole), BY, np.asarray(1e-9))


def test_one_replica_has_nothing_to_share() -> None:
    for sharding in Sharding:
        assert data_parallel_s(work_of(layout(sharding=sharding)), BY, np.asarray(1.0)) == 0


def test_the_optimizer_moves_thirty_bytes_a_parameter() -> None:
    copied, sharded = layout(data_parallel_size=8), layout(data_parallel_size=8, sharding=Sharding.ZERO1)
    n = float(local_parameters(work_of(copied)))
    assert optimizer_s(work_of(copied), BY) == pytest.approx(30 * n / MEMORY)
    assert optimizer_s(work_of(sharded), BY) == pytest.approx(30 * n / 8 / MEMORY)


def test_pipeline_sends_activations_there_and_back() -> None:
    work = work_of(layout(pipeline_parallel_size=2))
    assert pipeline_send_s(work, BY) == pytest.approx(2 * TOKENS * D * 2 / 10e9, rel=1e-6)
    assert pipeline_send_s(work_of(layout()), BY) == 0


def test_a_zero_bubble_schedule_idles_for_a_third() -> None:
    plan = layout(n_micro=5, pipeline_parallel_size=4)
    idle, filled = (step_parts(work_of(plan, stack=replace(STACK, zero_bubble=zero)), BY)[Part.BUBBLE] for zero in (False, True))
    mean = (8 * layer_s() + head_by_hand_s(tables=1)) / 4
    assert idle - filled == pytest.approx(3 * mean * 2 / 3, rel=1e-6)


def test_an_interleaved_pipeline_shows_its_sends_only_while_it_fills_and_drains() -> None:
    plain, interleaved = (work_of(layout(n_micro=5, pipeline_parallel_size=4, n_virtual_stages=n)) for n in (1, 2))
    once = 2 * TOKENS * D * 2 / 10e9  # there and back
    assert step_parts(plain, BY)[Part.PIPELINE_SEND] == pytest.approx((5 + 3) * once, rel=1e-6)
    assert step_parts(interleaved, BY)[Part.PIPELINE_SEND] == pytest.approx(3 * once, rel=1e-6)
    torch = work_of(layout(n_micro=5, pipeline_parallel_size=4, n_virtual_stages=2), stack=replace(STACK, family=StackFamily.TORCH))
    assert step_parts(torch, BY)[Part.PIPELINE_SEND] > 5 * once


def test_experts_in_fp8_have_a_factor_of_their_own() -> None:
    experts = replace(SMALL, name="experts", n_experts=4, experts_top_k=1, d_ff_expert=FF, d_ff=0)
    half = coefficients(fp8_expert_fraction=0.5)
    for is_fp8, changes in ((1.0, True), (0.0, False)):
        work = work_of(layout(), shape=experts, is_narrow=is_fp8)
        assert (layer_of(work, half).compute_s > layer_of(work, BY).compute_s) == changes
    assert layer_of(work_of(layout(), is_narrow=1.0), half).compute_s == layer_of(work_of(layout(), is_narrow=1.0), BY).compute_s


def test_a_step_adds_up_by_hand() -> None:
    # one device, three passes of eight layers and the head, and the optimizer
    work = work_of(layout(n_micro=3))
    layer, head = layer_s(), head_by_hand_s(tables=2)
    assert step_s(work, BY) == pytest.approx(3 * (8 * layer + head) + float(optimizer_s(work, BY)), rel=1e-6)


def test_a_pipeline_idles_while_it_fills_and_drains() -> None:
    # 4 equal stages of 2 layers; the head makes the last one slower: 5 micro-batches wait for it
    work = work_of(layout(n_micro=5, pipeline_parallel_size=4))
    layer, head = layer_s(), head_by_hand_s(tables=1)
    mean, beat = (8 * layer + head) / 4, 2 * layer + head
    assert step_parts(work, BY)[Part.BUBBLE] == pytest.approx(5 * (beat - mean) + 3 * mean, rel=1e-6)


def test_software_is_a_factor_on_everything() -> None:
    by = coefficients(torch_factor=1.5, progress_per_year=2.0)
    torch = work_of(layout(), stack=replace(STACK, family=StackFamily.TORCH, year=2025))
    assert software_factor(torch, by) == pytest.approx(1.5 / 2)
    assert software_factor(work_of(layout()), by) == 1


def test_the_drag_of_a_large_world_grows_by_the_doubling() -> None:
    # 64 devices are 8 nodes: three doublings
    work, by = work_of(layout(data_parallel_size=64)), coefficients(straggler_per_doubling=0.01)
    parts = step_parts(work, by)
    assert parts[Part.STRAGGLER] == pytest.approx(0.03 * (float(step_s(work, by)) - float(parts[Part.STRAGGLER])))


def test_the_network_decays_by_the_doubling() -> None:
    work, by = work_of(layout(data_parallel_size=64)), coefficients(scale_out_decay_per_doubling=0.1)
    assert links_of(work, by).out_bytes_per_s == pytest.approx(10e9 * np.exp(-0.3))


def test_a_probe_beyond_a_healthy_ring_is_congestion() -> None:
    plan = layout(data_parallel_size=64)
    assert links_of(work_of(plan), BY).congestion_s == 0
    assert links_of(work_of(plan, ring_step_s=HEALTHY_STEP_S), BY).congestion_s == 0
    assert links_of(work_of(plan, ring_step_s=HEALTHY_STEP_S + 1e-4), BY).congestion_s == pytest.approx(1e-4)


def test_congestion_holds_up_tensor_parallelism_inside_a_node() -> None:
    # eight calls, each a step per rank: 8 x 4 / 8 steps of 1 ms
    by = coefficients(congested_tensor_factor=1.0)
    sick = work_of(layout(data_parallel_size=16, tensor_parallel_size=4), ring_step_s=HEALTHY_STEP_S + 1e-3)
    assert layer_of(sick, by).total_s == pytest.approx(4e-3, rel=1e-2)


def test_speed_is_compared_by_device_seconds_per_token() -> None:
    work = work_of(layout(n_micro=2, data_parallel_size=4, tensor_parallel_size=2))
    assert np.exp(log_device_s_per_token(work, BY)) == pytest.approx(float(step_s(work, BY)) * 8 / (4 * 2 * 1024))


def test_a_device_that_nobody_measured_is_refused() -> None:
    with pytest.raises(UsageError, match=r"round has no matmul_flops_per_s\.fp8"):
        matmul_flops_per_s(DEVICE, Precision.FP8)
