"""The formulas of traffic and FLOPs against the program: every collective of one rank equal in kind, axis, calls and bytes.

Known extras of the program, which the formulas have too: rows padded to the shard degree, gradients in fp32, the gathered
logits, and tensor-parallel all-reduces for the weights of norms and the router. What is left out on both sides: all-reduces
over one rank, which FSDP2 calls and nobody answers.
"""

from dataclasses import replace

import pytest

from bench.cost.flops import Convention, expert_flops_per_token, flops_per_token, router_flops_per_token
from bench.cost.traffic import padding_factor, step_collectives
from bench.facts.model import ModelShape, NormKind, Position
from bench.facts.plan import ParallelPlan, Recompute, Sharding
from bench.facts.profile import Collective
from bench.facts.trace import MeshAxis, Phase
from bench.run.trace import trace_step

DENSE = ModelShape(
    name="dense", n_layers=2, d_model=512, n_heads=8, n_kv_heads=4, head_dim=64, d_ff=1024, vocab_size=1024, seq_len=256,
)  # fmt: skip
GPT = replace(
    DENSE, name="gpt", n_kv_heads=8, gated=False, bias=True, norm=NormKind.LAYER, position=Position.LEARNED, tied_embedding=True,
)  # fmt: skip
GROK1 = replace(
    DENSE, name="grok-1", d_ff=0, n_experts=8, experts_top_k=2, d_ff_expert=256, sandwich_norm=True, attention_softcap=30.0,
    tied_embedding=True,
)  # fmt: skip
GROK2 = replace(GROK1, name="grok-2", d_ff=1024, n_layers=3, expert_capacity_factor=1.25)
ZERO3 = Sharding.ZERO3


def plan_of(n_devices: int, copies: int = 1, sharding: Sharding = Sharding.NONE, **sizes: int | Recompute) -> ParallelPlan:
    rest = ParallelPlan(data_parallel_size=1, **{k: v for k, v in sizes.items() if k[:6] in ("tensor", "contex")})  # type: ignore[arg-type]
    dp, unused = divmod(n_devices, rest.world_size)
    assert unused == 0
    return ParallelPlan(data_parallel_size=dp, data_parallel_replicate_size=copies, sharding=sharding, **sizes)  # type: ignore[arg-type]


def fsdp(n: int) -> ParallelPlan:
    return plan_of(n, sharding=ZERO3)


def hsdp(n: int) -> ParallelPlan:
    return plan_of(n, copies=n // 4, sharding=ZERO3)


def zero2(n: int) -> ParallelPlan:
    return plan_of(n, sharding=Sharding.ZERO2)


def tp(n: int) -> ParallelPlan:
    return plan_of(n, tensor_parallel_size=4)


def fsdp_tp(n: int) -> ParallelPlan:
    return plan_of(n, sharding=ZERO3, tensor_parallel_size=2)


def cp(n: int) -> ParallelPlan:
    return plan_of(n, context_parallel_size=2)


def ep(n: int) -> ParallelPlan:
    return plan_of(n, expert_parallel_size=8)


def ep_tp_cp(n: int) -> ParallelPlan:
    return plan_of(n, sharding=ZERO3, expert_parallel_size=2, tensor_parallel_size=2, context_parallel_size=2)


PLANS = {
    "fsdp": (fsdp, DENSE), "fsdp gpt": (fsdp, GPT), "fsdp grok-1": (fsdp, GROK1), "zero2": (zero2, DENSE), "hsdp": (hsdp, DENSE),
    "tp": (tp, DENSE), "tp grok-2": (tp, GROK2), "fsdp_tp": (fsdp_tp, DENSE), "fsdp_tp grok-1": (fsdp_tp, GROK1),
    "cp": (cp, DENSE), "cp grok-1": (cp, GROK1), "ep": (ep, GROK1), "ep_tp_cp": (ep_tp_cp, GROK2),
}  # fmt: skip


def assert_equal_counts(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int = 1) -> None:
    traced = trace_step(shape, plan, micro_batch_size)
    assert traced.collectives == step_collectives(shape, plan, micro_batch_size)
    if plan.recompute is Recompute.NONE:
        assert traced.product_flops == pytest.approx(expected_flops(shape, plan, micro_batch_size), rel=0.005)


def expected_flops(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int) -> float:
    """The model's FLOPs dealt out evenly, but for what the program does otherwise and says so.

    Every tensor-parallel rank routes the whole sequence. A context-parallel rank leaves out keys later than its queries: its
    two chunks of 2 n see 1 and 2 n of them, (2 n + 1) / (4 n) of all scores; with a soft-cap and no context parallelism these
    sequences are two chunks of 128, 3 of 4 quarters. Capacity counts for experts.
    """
    cp, tokens = plan.context_parallel_size, micro_batch_size * shape.seq_len / plan.model_parallel_size
    full, causal = (flops_per_token(shape, c) for c in (Convention.FULL, Convention.CAUSAL))
    scores = 2 * (full - causal)
    share = (2 * cp + 1) / (4 * cp) if cp > 1 else 0.75 if shape.attention_softcap is not None else 1.0
    spare = 3 * shape.n_layers * (shape.expert_capacity_factor - 1) * expert_flops_per_token(shape)
    router = 3 * shape.n_layers * router_flops_per_token(shape) * (plan.tensor_parallel_size - 1)
    return tokens * (full - scores + share * scores + spare + router)


@pytest.mark.parametrize("name", PLANS)
def test_formulas_are_what_the_program_sends(name: str) -> None:
    make, shape = PLANS[name]
    assert_equal_counts(shape, make(8))


@pytest.mark.parametrize("world_size", [64, 1024])
@pytest.mark.parametrize("name", ["fsdp", "hsdp", "tp", "fsdp_tp", "cp", "ep"])
def test_formulas_hold_for_more_devices(name: str, world_size: int) -> None:
    make, shape = PLANS[name]
    assert_equal_counts(shape, make(world_size))


def test_formulas_hold_for_a_hundred_thousand_devices() -> None:
    make, shape = PLANS["hsdp"]
    assert_equal_counts(shape, make(100_000))


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [64, 1024, 100_000])
@pytest.mark.parametrize("name", PLANS)
def test_formulas_hold_for_many_devices(name: str, world_size: int) -> None:
    make, shape = PLANS[name]
    assert_equal_counts(shape, make(world_size))


@pytest.mark.parametrize("how", [Recompute.SELECTIVE, Recompute.FULL])
@pytest.mark.parametrize("shape", [DENSE, GROK1, GROK2], ids=lambda shape: shape.name)
def test_what_is_computed_again_is_sent_again(shape: ModelShape, how: Recompute) -> None:
    sizes = {"tensor_parallel_size": 2, "context_parallel_size": 2, "expert_parallel_size": 2 if shape.is_moe else 1}
    plan = plan_of(8, sharding=ZERO3, recompute=how, **sizes)
    assert_equal_counts(shape, plan)


def test_a_larger_micro_batch_sends_more_activations() -> None:
    assert_equal_counts(GROK2, ep_tp_cp(16), micro_batch_size=3)


@pytest.mark.parametrize("shape", [DENSE, GROK1], ids=lambda shape: shape.name)
def test_ranks_that_are_all_in_one_group_are_counted_too(shape: ModelShape) -> None:
    assert_equal_counts(shape, plan_of(4, sharding=ZERO3, context_parallel_size=4))
    assert_equal_counts(shape, plan_of(4, tensor_parallel_size=4))
    if shape.is_moe:
        assert_equal_counts(shape, plan_of(4, sharding=ZERO3, expert_parallel_size=4))


def test_fsdp_layer_by_hand() -> None:
    # q, o 512 * 512, k, v 256 * 512, three matrices of 512 * 1024, two norms of 512: 2,360,320 weights
    sent = step_collectives(DENSE, fsdp(8), 1)
    gathered = {(c.phase, c.n_calls) for c in sent if c.collective is Collective.ALL_GATHER and c.n_bytes == 2 * 2_360_320}
    assert gathered == {(Phase.FORWARD, 2), (Phase.BACKWARD, 2)}
    assert [c.n_bytes for c in sent if c.collective is Collective.REDUCE_SCATTER and c.n_calls == 2] == [4 * 2_360_320]


def test_rows_are_padded_to_the_ranks_that_share_them() -> None:
    # every matrix of 512 or 256 rows becomes one of 1,024; only up and gate, embedding and head have 1,024 already
    # layer: q, o, and down 1024 * 512 + 1024 * 512 + 1024 * 1024, k, v 2 * 1024 * 512, up, gate 2 * 1024 * 512, norms 2 * 1024
    padded = [c for c in step_collectives(DENSE, fsdp(1024), 1) if c.phase is Phase.FORWARD and c.n_calls == 2]
    assert [c.n_bytes for c in padded] == [2 * (2 * 524_288 + 1_048_576 + 2 * 524_288 + 2 * 524_288 + 2048)]
    assert padding_factor(DENSE, fsdp(8)) == 1.0
    # eight experts become 64: the router too, eight times as much; dense rows divide
    assert 4 < padding_factor(GROK1, fsdp(64)) < 8


def test_a_rank_alone_sends_nothing() -> None:
    assert step_collectives(DENSE, plan_of(1), 1) == ()
    assert {c.axis for c in step_collectives(DENSE, plan_of(4, tensor_parallel_size=4), 1)} == {MeshAxis.TENSOR}
