"""What is traced is the program: layer by layer, and as real ranks send it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from bench.codec import decode_text, encode_text
from bench.cost.traffic import step_collectives
from bench.facts.model import ModelShape
from bench.facts.plan import ParallelPlan, Recompute, Sharding
from bench.facts.profile import Collective
from bench.facts.trace import StepCounts
from bench.run.mesh import make_mesh
from bench.run.parallel import lay_out
from bench.run.trace import count_step, trace_depths, trace_step
from bench.run.transformer import Transformer
from tests.unit.test_traffic import DENSE, GROK1, GROK2, ep_tp_cp, fsdp, fsdp_tp, zero2

DEEP = 4
REAL_PLANS = {
    "fsdp": (DENSE, ParallelPlan(data_parallel_size=4, sharding=Sharding.ZERO3)),
    "hsdp": (DENSE, ParallelPlan(data_parallel_size=4, data_parallel_replicate_size=2, sharding=Sharding.ZERO3)),
    "tp": (DENSE, ParallelPlan(data_parallel_size=2, tensor_parallel_size=2)),
    "cp": (DENSE, ParallelPlan(data_parallel_size=2, context_parallel_size=2)),
    "ep_tp": (GROK2, ParallelPlan(data_parallel_size=2, tensor_parallel_size=2, expert_parallel_size=2, sharding=Sharding.ZERO3)),
}


@pytest.mark.parametrize(
    ("shape", "plan"),
    [
        (DENSE, fsdp(16)),
        (DENSE, zero2(16)),
        (DENSE, replace(fsdp_tp(16), recompute=Recompute.FULL)),
        (GROK1, ep_tp_cp(16)),
        (GROK2, replace(ep_tp_cp(16), recompute=Recompute.FULL)),
    ],
)
def test_a_deep_model_is_what_two_shallow_ones_say(shape: ModelShape, plan: ParallelPlan) -> None:
    deep = replace(shape, n_layers=DEEP)
    assert (trace_step(deep, plan, 1),) == trace_depths(deep, plan, 1, (DEEP,))


def test_buckets_of_ddp_add_up_to_the_gradients_that_the_formula_reduces() -> None:
    # the plan ddp is not traced: its reducer takes real tensors only, and a hook in the place of the all-reduce
    buckets: list[int] = []

    def hook(_: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        buckets.append(bucket.buffer().nbytes)
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    plan = ParallelPlan(data_parallel_size=64)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=plan.world_size)
    try:
        model = DistributedDataParallel(Transformer(DENSE), gradient_as_bucket_view=True)
        model.register_comm_hook(None, hook)
        tokens = torch.zeros((1, DENSE.seq_len), dtype=torch.int64)
        model(tokens, tokens).backward()
    finally:
        dist.destroy_process_group()
    reduced = step_collectives(DENSE, plan, 1)
    assert {c.collective for c in reduced} == {Collective.ALL_REDUCE}
    assert sum(buckets) == sum(c.total_bytes for c in reduced)


def real_rank(rank: int, folder: str) -> None:
    """One of four real ranks: counts a step under every plan, and writes what it counted."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=4)
    for name, (shape, plan) in REAL_PLANS.items():
        mesh = make_mesh(plan, "cpu")
        model = Transformer(shape)
        lay_out(model, mesh, torch.bfloat16, compiled=False)
        tokens = torch.zeros((1, shape.seq_len // plan.context_parallel_size), dtype=torch.int64)
        counted = count_step(model, tokens, mesh)
        Path(folder, f"{name}-{rank}.json").write_text(encode_text(counted))
    dist.destroy_process_group()


@pytest.mark.slow
def test_four_real_ranks_send_what_the_trace_says(tmp_path: Path) -> None:
    mp.spawn(real_rank, (str(tmp_path),), nprocs=4)  # type: ignore[no-untyped-call]
    for name, (shape, plan) in REAL_PLANS.items():
        traced = trace_step(shape, plan, 1)
        counted = [decode_text(StepCounts, (tmp_path / f"{name}-{rank}.json").read_text()) for rank in range(4)]
        assert counted == [traced] * 4, name
