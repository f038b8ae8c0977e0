"""One rank of the real model under fake tensors and a fake process group: every collective and product counted, none carried out.

The mesh and the wrapped model are made on the meta device, and only then take fake tensors; torch 2.13 fails in another order.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.distributed_c10d import _resolve_process_group  # type: ignore[attr-defined]
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bench.facts.model import ModelShape
from bench.facts.plan import ParallelPlan
from bench.facts.profile import Collective
from bench.facts.trace import CollectiveCalls, MeshAxis, Phase, StepCounts, merged
from bench.run.mesh import Mesh, make_mesh
from bench.run.parallel import assert_laid_out, lay_out
from bench.run.transformer import Transformer

DEPTHS = (1, 2)  # layers that are traced; all counts are linear in the number of layers
TRAFFIC = ("c10d", "_c10d_functional")
NO_TRAFFIC = ("wait", "barrier", "_wrap")  # how the names of their other operations begin
COLLECTIVES = {
    "allreduce_": Collective.ALL_REDUCE,
    "all_reduce": Collective.ALL_REDUCE,
    "_allgather_base_": Collective.ALL_GATHER,
    "all_gather_into_tensor": Collective.ALL_GATHER,
    "_reduce_scatter_base_": Collective.REDUCE_SCATTER,
    "reduce_scatter_tensor": Collective.REDUCE_SCATTER,
    "alltoall_base_": Collective.ALL_TO_ALL,
}


def trace_step(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int) -> StepCounts:
    """Counts of rank 0 in one pass in bf16, of a plan on a device mesh without pipeline; no weight is held.

    A deep model is cut to one and to two layers, and the difference is taken for every layer that is missing.
    """
    if shape.n_layers in DEPTHS:
        return trace_depths(shape, plan, micro_batch_size, (shape.n_layers,))[0]
    one, two = trace_depths(shape, plan, micro_batch_size, DEPTHS)
    return _deepened(one, two, shape.n_layers - DEPTHS[-1])


def trace_depths(shape: ModelShape, plan: ParallelPlan, micro_batch_size: int, depths: tuple[int, ...]) -> tuple[StepCounts, ...]:
    """The counts of the model cut to each of several depths, nothing inferred."""
    assert plan.pipeline_parallel_size == 1, plan
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=plan.world_size)
    try:
        with warnings.catch_warnings():
            # of a run, where it is true and harmless: nobody changes in place what the experts return
            warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
            mesh = make_mesh(plan, "cpu")  # reads its rank from a real tensor, hence outside the fake mode
            return tuple(_trace(replace(shape, n_layers=depth), mesh, micro_batch_size) for depth in depths)
    finally:
        dist.destroy_process_group()


def _trace(shape: ModelShape, mesh: Mesh, micro_batch_size: int) -> StepCounts:
    with torch.device("meta"):
        model = Transformer(shape)
    lay_out(model, mesh, torch.bfloat16, compiled=False)
    assert_laid_out(model, mesh)
    model.owns_logits = False  # the CPU's own loss, which multiplies nothing, would go through thousands of blocks
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        seq_len = shape.seq_len // mesh.plan.context_parallel_size
        return count_step(model, torch.zeros((micro_batch_size, seq_len), dtype=torch.int64), mesh)


def count_step(model: nn.Module, tokens: Tensor, mesh: Mesh) -> StepCounts:
    """Counts of one forward and backward pass over tokens [B, S] and of the optimizer step, real or fake.

    Attention runs as plain products, so that every score is counted once and none is computed again.
    """
    _clear_sharding_prop_cache()  # type: ignore[no-untyped-call]  # DTensor remembers the groups of an earlier mesh of the same ranks
    optimizer = torch.optim.AdamW([{"params": [p]} for p in model.parameters()])  # one group each: meshes must not mix
    with sdpa_kernel(SDPBackend.MATH):
        _step(model, tokens, optimizer, None)  # DTensor tries every operation on stand-ins the first time
        recorder = Recorder(axis_names(mesh))
        with recorder:
            _step(model, tokens, optimizer, recorder)
    return recorder.counts()


def _step(model: nn.Module, tokens: Tensor, optimizer: torch.optim.Optimizer, recorder: "Recorder | None") -> None:
    loss = model(tokens, tokens)
    if recorder:
        recorder.phase = Phase.BACKWARD
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def axis_names(mesh: Mesh) -> Mapping[str, MeshAxis]:
    """The axis of every process group that a pass may use, by the name of the group.

    A group of all ranks may serve several axes: the later of these names it, but for the exchange of slots.
    """
    groups = {
        MeshAxis.CONTEXT: mesh.group("cp"),
        MeshAxis.EXPERT: mesh.group("ep"),
        MeshAxis.EXPERT_DATA_SHARD: mesh.experts.get_group("shard"),
        MeshAxis.EXPERT_DATA_REPLICATE: mesh.experts.get_group("replicate"),
        MeshAxis.DATA_REPLICATE: mesh.dense.get_group("replicate"),
        MeshAxis.DATA_SHARD: mesh.dense.get_group("shard"),
        MeshAxis.TENSOR: mesh.dense.get_group("tp"),
    }
    return {str(group.group_name): axis for axis, group in groups.items()}


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the calls below it."""

    def __init__(self, axes: Mapping[str, MeshAxis]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = Phase.FORWARD
        self._axes = axes
        self._calls: list[CollectiveCalls] = []
        self._flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # the local shard's operations come next
        out = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        if func.namespace in TRAFFIC and not name.startswith(NO_TRAFFIC):
            self._add(COLLECTIVES[name], _group(args), tree_leaves((args, out)))
        elif func._overloadpacket in flop_registry:
            self._flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out

    def _add(self, collective: Collective, group: dist.ProcessGroup, leaves: list[Any]) -> None:
        if group.size() == 1:
            return  # FSDP2 reduces over its copies even where there is one
        axis = MeshAxis.EXPERT if collective is Collective.ALL_TO_ALL else self._axes[group.group_name]
        n_bytes = max(t.numel() * t.element_size() for t in leaves if isinstance(t, Tensor))
        self._calls.append(
            CollectiveCalls(phase=self.phase, collective=collective, axis=axis, group_size=group.size(), n_bytes=n_bytes, n_calls=1)
        )

    def counts(self) -> StepCounts:
        """What was called, equal calls together."""
        return StepCounts(collectives=merged(self._calls), product_flops=self._flops)


def _group(args: Any) -> dist.ProcessGroup:
    """The group that a call names: an object for c10d, a string for functional collectives."""
    for leaf in reversed(tree_leaves(args)):
        if isinstance(leaf, torch.ScriptObject) and "ProcessGroup" in str(leaf._type()):
            return dist.ProcessGroup.unbox(leaf)
        if isinstance(leaf, str) and leaf not in ("sum", "avg", "max"):
            return _resolve_process_group(leaf)  # type: ignore[arg-type]
    raise AssertionError(args)


def _deepened(one: StepCounts, two: StepCounts, n_more: int) -> StepCounts:
    """The counts of `n_more` layers more than `two`, which has one more than `one`."""
    first = {replace(c, n_calls=1): c.n_calls for c in one.collectives}
    per_layer = {c: c.n_calls - first.get(replace(c, n_calls=1), 0) for c in two.collectives}
    return StepCounts(
        collectives=tuple(replace(c, n_calls=c.n_calls + n_more * n) for c, n in per_layer.items()),
        product_flops=two.product_flops + n_more * (two.product_flops - one.product_flops),
    )
