"""One rank of the real model under fake tensors and a fake process group: every collective, nothing computed or sent."""

from collections import Counter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.distributed_c10d import _resolve_process_group  # type: ignore[attr-defined]
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.facts.model import ModelShape
from bench.facts.plan import ParallelPlan
from bench.facts.trace import Phase, TracedCollective
from bench.run.mesh import make_mesh
from bench.run.parallel import assert_laid_out, lay_out
from bench.run.transformer import Transformer

TRAFFIC = ("c10d", "_c10d_functional")


def trace_collectives(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int) -> tuple[TracedCollective, ...]:
    """Collectives of rank 0 in one forward and backward pass in bf16, of a plan without pipeline or context parallelism."""
    assert plan.pipeline_parallel_size == plan.context_parallel_size == 1, plan
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=plan.world_size)
    try:
        return _trace(shape, plan, micro_batch_size)
    finally:
        dist.destroy_process_group()


def _trace(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int) -> tuple[TracedCollective, ...]:
    mesh = make_mesh(plan, "cpu")  # reads its rank from a real tensor, hence outside the fake mode
    with torch.device("meta"):
        model = Transformer(shape)
    lay_out(model, mesh, torch.bfloat16, compiled=False)
    assert_laid_out(model, mesh)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        tokens = torch.zeros((micro_batch_size, shape.seq_len), dtype=torch.int64)
        recorder = Recorder()
        with recorder:
            loss = model(tokens, tokens)
            recorder.phase = Phase.BACKWARD
            loss.backward()
    return recorder.collectives()


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the calls below it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = Phase.FORWARD
        self._calls: Counter[tuple[Phase, str, int, int]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # the local shard's operations come next
        out = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        if func.namespace in TRAFFIC and not name.startswith(("wait", "barrier", "_wrap")):
            n_bytes = max(t.numel() * t.element_size() for t in tree_leaves((args, out)) if isinstance(t, Tensor))
            self._calls[self.phase, name, _group_size(args), n_bytes] += 1
        return out

    def collectives(self) -> tuple[TracedCollective, ...]:
        """What was called, equal calls together."""
        return tuple(
            TracedCollective(phase=phase, operation=name, group_size=size, n_bytes=n_bytes, n_calls=n)
            for (phase, name, size, n_bytes), n in self._calls.items()
        )


def _group_size(args: Any) -> int:
    """Ranks of the group that a call names: an object for c10d, a string for functional collectives."""
    for leaf in reversed(tree_leaves(args)):
        if isinstance(leaf, torch.ScriptObject) and "ProcessGroup" in str(leaf._type()):
            return int(dist.ProcessGroup.unbox(leaf).size())
        if isinstance(leaf, str) and leaf not in ("sum", "avg", "max"):
            return int(_resolve_process_group(leaf).size())  # type: ignore[arg-type]
    raise AssertionError(args)
