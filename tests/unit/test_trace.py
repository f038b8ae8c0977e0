"""Collectives of the real model, traced at pretended world sizes."""

import pytest

from bench.facts.model import ModelShape
from bench.facts.plan import ParallelPlan, Sharding
from bench.facts.trace import Phase
from bench.run.trace import trace_collectives


def shape(n_layers: int) -> ModelShape:
    return ModelShape(
        name="t", n_layers=n_layers, d_model=512, n_heads=8, n_kv_heads=8, head_dim=64, d_ff=1024, vocab_size=1024, seq_len=256
    )


@pytest.mark.parametrize("world_size", [8, 64])
@pytest.mark.parametrize("n_layers", [2, 3])
def test_fsdp_gathers_each_layer_forward_and_backward_and_scatters_its_gradient(world_size: int, n_layers: int) -> None:
    plan = ParallelPlan(data_parallel_size=world_size, sharding=Sharding.ZERO3)
    calls = {
        (phase, name): sum(
            c.n_calls
            for c in trace_collectives(shape(n_layers), plan, 1)
            if (c.phase, c.operation, c.group_size) == (phase, name, world_size)
        )
        for phase, name in [
            (Phase.FORWARD, "_allgather_base_"),
            (Phase.BACKWARD, "_allgather_base_"),
            (Phase.BACKWARD, "_reduce_scatter_base_"),
        ]
    }
    assert set(calls.values()) == {n_layers + 1}  # the rest of the model is one more unit
