"""What one device holds and does: shards add up to the whole, and the transformer built from them is the one described."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cost.flops import Convention, attention_flops_per_token, head_flops_per_token, layer_flops_per_token
from bench.cost.parameters import (
    attention_parameters,
    dense_parameters,
    expert_parameters,
    layer_parameters,
    norm_parameters,
    router_parameters,
)
from bench.cost.shard import (
    shard_ends_flops,
    shard_ends_parameters,
    shard_layer_flops,
    shard_layer_parameters,
    shard_products,
    slice_bytes,
)
from bench.errors import DoesNotFit, InvalidFact
from bench.facts.hardware import Backend, Precision
from bench.facts.measurement import Environment
from bench.facts.model import ModelShape
from bench.facts.plan import ParallelPlan, Recompute
from bench.facts.profile import RepeatPolicy, SliceSpec
from bench.facts.progress import unheard
from bench.facts.shard import local_shape, n_experts_held
from bench.run.devices import LocalDevice
from bench.run.environment import capture_environment
from bench.run.shard import ShardTransformer
from bench.run.slice import build_shard, measure_slice
from bench.run.transformer import Transformer
from tests.flops import flop_counter
from tests.strategies import configured_shape, model_shapes

CPU = LocalDevice(Backend.CPU, 0)
WHOLE = ModelShape(
    name="whole",
    n_layers=2,
    d_model=32,
    n_heads=8,
    n_kv_heads=4,
    head_dim=4,
    d_ff=0,
    vocab_size=64,
    seq_len=32,
    n_experts=4,
    experts_top_k=2,
    d_ff_expert=16,
    sandwich_norm=True,
)


@pytest.fixture(scope="module")
def environment() -> Environment:
    return capture_environment(CPU, 1)


def plan_of(tp: int = 1, ep: int = 1, cp: int = 1, **more: Any) -> ParallelPlan:
    return ParallelPlan(data_parallel_size=ep, tensor_parallel_size=tp, expert_parallel_size=ep, context_parallel_size=cp, **more)


def spec_of(shape: ModelShape, plan: ParallelPlan, n_layers: int = 1, needed_bytes: float = 0.0) -> SliceSpec:
    return SliceSpec(
        target=shape.name,
        cluster="",
        model=shape,
        plan=plan,
        micro_batch_size=2,
        n_layers=n_layers,
        precision=Precision.FP32,
        seed=0,
        repeat=RepeatPolicy(budget_s=0.01, target_ci=0.1, confidence=0.95, min_samples=2),
        layer_flops=shard_layer_flops(shape, plan, 2),
        ends_flops=shard_ends_flops(shape, plan, 2),
        needed_bytes=needed_bytes,
    )


@st.composite
def divisible(draw: st.DrawFn) -> tuple[ModelShape, ParallelPlan]:
    """A shape and a plan that divides it."""
    small, size = draw(model_shapes()), st.sampled_from((1, 2, 4))
    tp, cp = draw(size), draw(size)
    ep = draw(st.sampled_from([d for d in (1, 2, 4) if small.n_experts % d == 0])) if small.is_moe else 1
    shape = replace(
        small,
        n_heads=small.n_heads * tp,
        n_kv_heads=small.n_kv_heads * tp,
        d_ff=small.d_ff * tp,
        d_ff_expert=small.d_ff_expert * tp,
        vocab_size=small.vocab_size * tp,
        seq_len=small.seq_len * tp * cp * max(1, small.n_experts),
        bias=False,
    )
    return shape, plan_of(tp, ep, cp)


def test_grok_1_on_eight_by_eight_devices_has_the_widths_worked_out_by_hand() -> None:
    # 48 / 8 query heads, 8 / 8 key-value heads, 32768 / 8 units of 8 / 8 experts, 131072 / 8 tokens known, 8192 / 2 tokens long
    grok, plan = configured_shape("grok1_314b"), plan_of(tp=8, ep=8, cp=2)
    s = local_shape(grok, plan)
    assert (s.n_heads, s.n_kv_heads, s.d_ff_expert, s.vocab_size, s.seq_len, s.d_model) == (6, 1, 4096, 16384, 4096, 6144)
    assert n_experts_held(grok, plan) == 1
    # attention 2 * 6144 * (768 + 128), one expert 3 * 6144 * 4096, router 6144 * 8, four norms of 6144
    assert shard_layer_parameters(grok, plan) == 11_010_048 + 75_497_472 + 49_152 + 24_576


def test_few_key_value_heads_are_copied() -> None:
    assert local_shape(replace(WHOLE, n_kv_heads=2), plan_of(tp=8, cp=1)).n_kv_heads == 1


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"tp": 3}, "tensor_parallel_size 3 does not divide n_heads 8; use 2 or 4"),
        ({"ep": 3}, "expert_parallel_size 3 does not divide n_experts 4"),
        ({"cp": 3}, r"context_parallel_size \* tensor_parallel_size 3 does not divide seq_len 32"),
    ],
)
def test_a_plan_that_does_not_divide_the_model_is_refused(sizes: dict[str, int], words: str) -> None:
    with pytest.raises(InvalidFact, match=words):
        local_shape(WHOLE, plan_of(**sizes))


def test_experts_of_a_dense_model_are_refused() -> None:
    dense = replace(WHOLE, n_experts=0, experts_top_k=0, d_ff_expert=0, d_ff=16)
    with pytest.raises(InvalidFact, match="has no experts"):
        local_shape(dense, plan_of(ep=2))


@given(divisible())
def test_shards_of_the_matrices_sum_to_the_whole(drawn: tuple[ModelShape, ParallelPlan]) -> None:
    shape, plan = drawn
    local, tp, ep = local_shape(shape, plan), plan.tensor_parallel_size, plan.expert_parallel_size
    assert tp * attention_parameters(local) == attention_parameters(shape)
    assert tp * dense_parameters(local) == dense_parameters(shape)
    held = n_experts_held(shape, plan)
    assert tp * ep * held * expert_parameters(local) == shape.n_experts * expert_parameters(shape)
    copied = norm_parameters(shape) + router_parameters(shape)
    dense = tp * ep * (shard_layer_parameters(shape, plan) - copied - held * expert_parameters(local))
    assert dense == ep * (layer_parameters(shape) - copied - shape.n_experts * expert_parameters(shape))


@given(divisible(), st.integers(1, 3))
def test_flops_of_all_devices_are_those_of_the_model(drawn: tuple[ModelShape, ParallelPlan], micro_batch_size: int) -> None:
    shape, plan = drawn
    n_devices, tokens = plan.model_parallel_size, micro_batch_size * shape.seq_len
    layer = shard_layer_flops(shape, plan, micro_batch_size)
    assert n_devices * layer == pytest.approx(tokens * layer_flops_per_token(shape, Convention.CAUSAL))
    assert n_devices * shard_ends_flops(shape, plan, micro_batch_size) == pytest.approx(tokens * head_flops_per_token(shape))


@given(divisible(), st.integers(1, 3))
def test_products_and_attention_are_all_of_a_layer(drawn: tuple[ModelShape, ParallelPlan], micro_batch_size: int) -> None:
    shape, plan = drawn
    products = shard_products(shape, plan, micro_batch_size)
    layer = sum(p.n_alike * p.flops for p in products if p.name != "head")
    tokens = micro_batch_size * shape.seq_len / plan.model_parallel_size
    attention = tokens * attention_flops_per_token(shape, Convention.CAUSAL)
    assert layer + attention == pytest.approx(shard_layer_flops(shape, plan, micro_batch_size))
    assert [p.flops for one in products for p in one.gradients()] == [p.flops for p in products for _ in range(2)]


@pytest.mark.parametrize("plan", [plan_of(), plan_of(tp=2), plan_of(ep=2), plan_of(tp=2, ep=4, cp=2)])
@pytest.mark.parametrize("d_ff", [0, 16])
def test_the_share_that_is_built_has_the_parameters_and_products_counted(plan: ParallelPlan, d_ff: int) -> None:
    shape = replace(WHOLE, d_ff=d_ff, attention_softcap=30.0)  # with the cap every product is counted
    model = build_shard(spec_of(shape, plan), CPU)
    assert sum(p.numel() for p in model.layers.parameters()) == shard_layer_parameters(shape, plan)
    # all parameters but the last norm's 32
    assert sum(p.numel() for p in model.parameters()) - 32 == shard_layer_parameters(shape, plan) + shard_ends_parameters(shape, plan)
    products = [p for p in shard_products(shape, plan, 2) if p.name != "head"]
    with flop_counter() as counter:
        model.run_layers(torch.randn(2, model.shape.seq_len // plan.tensor_parallel_size, 32))
    counted = counter.get_flop_counts()["Global"]
    ran = sum(flops for op, flops in counted.items() if str(op).split(".")[-1] in ("mm", "addmm", "bmm", "_linear_pointwise"))
    assert ran >= sum(p.n_alike * p.flops for p in products)
    # at most all scores; what is masked may be left out
    full = 2 * attention_flops_per_token(model.shape, Convention.FULL, shape.seq_len) * 2 * model.shape.seq_len
    assert ran <= sum(p.n_alike * p.flops for p in products) + full


@pytest.mark.parametrize("softcap", [None, 30.0])
def test_the_share_of_one_device_is_the_model(softcap: float | None) -> None:
    shape = replace(WHOLE, attention_softcap=softcap)
    torch.manual_seed(0)
    share, whole = ShardTransformer(shape, plan_of(), shape.n_layers), Transformer(shape)
    # the share wraps what splits; the tensors inside are in the same order
    whole.load_state_dict(dict(zip(whole.state_dict(), share.state_dict().values(), strict=True)))
    tokens = torch.randint(0, 64, (2, 32))
    torch.testing.assert_close(share.logits(share.norm(share.run_layers(share.embed(tokens)))), whole(tokens))


@pytest.mark.parametrize("plan", [plan_of(), plan_of(tp=2, cp=2)])
def test_recompute_changes_no_gradient(plan: ParallelPlan) -> None:
    def gradients(recompute: Recompute) -> list[torch.Tensor]:
        model = build_shard(spec_of(WHOLE, replace(plan, recompute=recompute)), CPU)
        torch.manual_seed(1)
        model.run_layers(torch.randn(2, model.shape.seq_len // plan.tensor_parallel_size, 32, requires_grad=True)).sum().backward()
        return [p.grad for p in model.layers.parameters() if p.grad is not None]

    plain = gradients(Recompute.NONE)
    assert plain
    for recompute in (Recompute.SELECTIVE, Recompute.FULL):
        torch.testing.assert_close(gradients(recompute), plain)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("plan", [plan_of(), plan_of(tp=2, ep=2, cp=2, recompute=Recompute.FULL)])
def test_every_phase_of_both_parts_is_timed(plan: ParallelPlan, precision: Precision, environment: Environment) -> None:
    spec = replace(spec_of(WHOLE, plan, n_layers=2), precision=precision)
    measured = measure_slice(spec, CPU, 1, environment, unheard)
    for part in (measured.layers, measured.ends):
        counts = {len(t.samples_s) for t in (part.forward, part.backward, part.optimizer)}
        assert len(counts) == 1
        assert counts.pop() >= 2
        assert part.forward.median_s > 0
    assert measured.layers.n_parameters == 2 * shard_layer_parameters(WHOLE, plan)
    assert measured.layers.forward_flops == 2 * shard_layer_flops(WHOLE, plan, 2)
    assert f"recompute {plan.recompute}" in measured.notes[0]


def test_a_share_that_is_too_large_is_refused_before_anything_is_built(environment: Environment) -> None:
    grok, plan = configured_shape("grok1_314b"), plan_of()
    need = slice_bytes(grok, plan, 1, 64, Precision.BF16)
    # 64 layers of 8 experts: 316 billion parameters of 2 + 2 + 4 + 12 bytes
    assert need > 316e9 * 20
    with pytest.raises(DoesNotFit, match="GiB are usable here") as error:
        measure_slice(spec_of(grok, plan, needed_bytes=need), CPU, 1, environment, unheard)
    assert "\n" not in str(error.value)


@settings(max_examples=25)
@given(divisible())
def test_more_tensor_parallel_devices_need_fewer_bytes_each(drawn: tuple[ModelShape, ParallelPlan]) -> None:
    shape, plan = drawn
    if plan.tensor_parallel_size > 1:
        alone = replace(plan, tensor_parallel_size=1)
        assert slice_bytes(shape, plan, 1, 1, Precision.BF16) < slice_bytes(shape, alone, 1, 1, Precision.BF16)
