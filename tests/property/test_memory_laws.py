"""Laws of the memory model: whatever the model, the plan and the stack."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bench.cost.layout import RECOMPUTES, SHARDINGS, Array, Layout
from bench.cost.memory import first_stage_reserved_bytes, stage_bytes, total_bytes
from bench.cost.stack_memory import EAGER, FUSED, StackMemory
from bench.facts.model import ModelShape
from bench.facts.plan import Recompute, Sharding
from bench.facts.prediction import MemoryEstimate

DENSE = ModelShape(name="dense", n_layers=8, d_model=1024, n_heads=8, n_kv_heads=2, head_dim=128, d_ff=2730, vocab_size=50000, seq_len=1024)
EXPERTS = replace(DENSE, name="experts", d_ff=0, n_experts=8, experts_top_k=2, d_ff_expert=2730)
SHAPES = st.sampled_from([DENSE, EXPERTS, replace(DENSE, name="tied", tied_embedding=True)])
STACKS = st.sampled_from([FUSED, EAGER])
BYTES = st.floats(1e9, 1e12)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    pp, ep = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([1, 2, 4, 8]))
    sizes = {
        "dp": ep * draw(st.integers(1, 6)),
        "tp": draw(st.sampled_from([1, 2, 4, 8])),
        "pp": pp,
        "n_virtual": draw(st.sampled_from([v for v in (1, 2, 4) if pp > 1 or v == 1])),
        "cp": draw(st.sampled_from([1, 2])),
        "ep": ep,
        "sharding": draw(st.integers(0, len(SHARDINGS) - 1)),
        "recompute": draw(st.integers(0, len(RECOMPUTES) - 1)),
        "micro_batch": draw(st.sampled_from([1, 2, 4])),
        "n_micro": pp * draw(st.integers(1, 4)),
    }
    return Layout(**{name: np.asarray(float(size)) for name, size in sizes.items()})


def of_kind(kind: Recompute | Sharding) -> Array:
    return np.asarray(float((RECOMPUTES if isinstance(kind, Recompute) else SHARDINGS).index(kind)))


@given(SHAPES, layouts(), STACKS)
def test_sharding_more_never_takes_more(shape: ModelShape, plan: Layout, stack: StackMemory) -> None:
    order = (Sharding.NONE, Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3)
    state = [float(stage_bytes(shape, replace(plan, sharding=of_kind(kind)), stack)[0]) for kind in order]
    assert state == sorted(state, reverse=True)


@given(SHAPES, layouts(), STACKS)
def test_more_copies_of_shards_never_take_less(shape: ModelShape, plan: Layout, stack: StackMemory) -> None:
    shared = replace(plan, sharding=of_kind(Sharding.ZERO3))
    copied = replace(shared, replicate=np.asarray(2.0))
    assert total_bytes(shape, copied, stack) >= total_bytes(shape, shared, stack)


@given(SHAPES, layouts(), STACKS)
def test_a_larger_micro_batch_never_takes_less(shape: ModelShape, plan: Layout, stack: StackMemory) -> None:
    larger = replace(plan, micro_batch=2 * plan.micro_batch)
    assert total_bytes(shape, larger, stack) >= total_bytes(shape, plan, stack)
    assert first_stage_reserved_bytes(shape, larger, stack) >= first_stage_reserved_bytes(shape, plan, stack)


@given(SHAPES, layouts(), STACKS)
def test_recomputing_more_never_takes_more(shape: ModelShape, plan: Layout, stack: StackMemory) -> None:
    order = (Recompute.NONE, Recompute.SELECTIVE, Recompute.FULL)
    total = [float(total_bytes(shape, replace(plan, recompute=of_kind(kind)), stack)) for kind in order]
    assert total == sorted(total, reverse=True)


@given(SHAPES, layouts(), STACKS)
def test_the_first_stage_never_holds_more_than_the_fullest(shape: ModelShape, plan: Layout, stack: StackMemory) -> None:
    bare = replace(stack, reserved_fraction=0.0, reserved_bytes=0.0)
    assert first_stage_reserved_bytes(shape, plan, bare) <= sum(stage_bytes(shape, plan, stack)) * (1 + 1e-12)


@given(BYTES, BYTES, BYTES)
def test_the_chance_to_fit_falls_with_the_need(one: float, other: float, capacity: float) -> None:
    less, more = (
        MemoryEstimate(state_bytes=need, activation_bytes=0, overhead_bytes=0, capacity_bytes=capacity, need_log_sd=0.15)
        for need in sorted((one, other))
    )
    assert less.fits_probability >= more.fits_probability
    assert 0 <= more.fits_probability <= 1
