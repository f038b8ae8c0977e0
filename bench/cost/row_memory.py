"""The memory of a published row: what its first stage would reserve, and whether its fullest device has room."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from bench.cost.completion import SHARDED, fitting_plans, layout_of_plan, shape_of, stack_of
from bench.cost.memory import estimate, first_stage_reserved_bytes
from bench.cost.stack_memory import stack_memory
from bench.facts.hardware import Device
from bench.facts.plan import Recompute, Sharding
from bench.facts.prediction import MemoryEstimate
from bench.facts.published import PublishedSetup


@dataclass(frozen=True, kw_only=True)
class RowMemory:
    """The memory of one row under one completion of its plan."""

    reserved_bytes: float  # of pipeline stage 0, as torch's allocator counts
    fullest: MemoryEstimate


def row_memory(setup: PublishedSetup, devices: Mapping[str, Device], place: int = 0) -> RowMemory:
    """The memory of a row under its completion number `place`, in the order of `completions`. The row can be expressed."""
    device, shape, stack = devices[setup.gpu], shape_of(setup), stack_of(setup)
    plan, by = fitting_plans(setup, shape, stack, device)[place], stack_memory(stack)
    recompute = Recompute.FULL if plan.recompute == 1 else Recompute.NONE
    is_hybrid = plan.sharding == "hsdp" and math.isfinite(plan.shard_ranks)
    copies = max(1.0, plan.dp * plan.cp / plan.shard_ranks) if is_hybrid else 1.0
    layout = layout_of_plan(plan, SHARDED.get(plan.sharding, Sharding.NONE), recompute, copies)
    reserved = float(first_stage_reserved_bytes(shape, layout, by))
    return RowMemory(reserved_bytes=reserved, fullest=estimate(shape, layout, device, by))
