"""Which rank does what: the device meshes of a plan.

Ranks count through the axes pp, dp_replicate, dp_shard, cp, tp, the last one fastest; expert ranks are neighbours in
dp_shard. Context-parallel ranks hold the same weights and different tokens, so that they reduce gradients like data ranks.
"""

from dataclasses import dataclass

import torch
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from bench.facts.plan import ParallelPlan, Sharding


@dataclass(frozen=True)
class Mesh:
    """The meshes that the parts of a plan are laid on, and where this rank stands in them."""

    plan: ParallelPlan
    dense: DeviceMesh  # pp, replicate, shard, tp
    experts: DeviceMesh  # pp, ep, tp, replicate, shard
    axes: DeviceMesh  # pp, dp, cp, tp

    def group(self, axis: str) -> ProcessGroup:
        """The process group of this rank along pp, dp, cp, tp or ep."""
        return (self.experts if axis == "ep" else self.axes).get_group(axis)

    def place(self, axis: str) -> int:
        """The place of this rank along an axis."""
        return int((self.experts if axis == "ep" else self.axes).get_local_rank(axis))

    @property
    def data(self) -> DeviceMesh:
        """The (replicate, shard) mesh over which dense weights are reduced."""
        return self.dense["replicate", "shard"]

    @property
    def expert_data(self) -> DeviceMesh:
        """The (replicate, shard) mesh over which one shard of the experts is reduced."""
        return self.experts["replicate", "shard"]


def make_mesh(plan: ParallelPlan, device_type: str) -> Mesh:
    """The meshes of a plan over all ranks; every rank has to call it."""
    pp, dp, cp, tp, ep = (
        plan.pipeline_parallel_size,
        plan.data_parallel_size,
        plan.context_parallel_size,
        plan.tensor_parallel_size,
        plan.expert_parallel_size,
    )
    whole = plan.sharding is Sharding.NONE
    replicas = dp * cp if whole else plan.data_parallel_replicate_size
    ranks = torch.arange(plan.world_size)
    expert_replicas = (dp // ep) * cp if whole else replicas
    by_expert = ranks.view(pp, dp // ep, ep, cp, tp).permute(0, 2, 4, 1, 3).reshape(pp, ep, tp, expert_replicas, -1)
    return Mesh(
        plan=plan,
        dense=init_device_mesh(device_type, (pp, replicas, dp * cp // replicas, tp), mesh_dim_names=("pp", "replicate", "shard", "tp")),
        experts=DeviceMesh(device_type, by_expert, mesh_dim_names=("pp", "ep", "tp", "replicate", "shard")),
        axes=init_device_mesh(device_type, (pp, dp, cp, tp), mesh_dim_names=("pp", "dp", "cp", "tp")),
    )
