"""How a model and a batch are laid over devices."""

from enum import StrEnum

from bench.facts.figure import fact, require


class Sharding(StrEnum):
    """What data-parallel ranks share instead of copying."""

    NONE = "none"  # every rank holds weights, gradients and optimizer state (DDP)
    ZERO1 = "zero1"  # optimizer state is sharded
    ZERO2 = "zero2"  # gradients and optimizer state are sharded; weights are gathered once per step
    ZERO3 = "zero3"  # weights, gradients and optimizer state are sharded (FSDP)


class Recompute(StrEnum):
    """Which activations are computed again in the backward pass."""

    NONE = "none"
    SELECTIVE = "selective"  # attention only
    FULL = "full"  # whole layers


@fact
class ParallelPlan:
    """Sizes of the axes of the device mesh; their product is the world size. Experts live inside the data axis."""

    data_parallel_size: int
    data_parallel_replicate_size: int = 1  # copies among the data ranks of a sharded plan (hybrid sharding)
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    n_virtual_stages: int = 1  # model chunks per pipeline rank; 1 is plain 1F1B
    context_parallel_size: int = 1
    expert_parallel_size: int = 1
    sharding: Sharding = Sharding.NONE
    recompute: Recompute = Recompute.NONE

    def __post_init__(self) -> None:
        for name in (
            "data_parallel_size",
            "data_parallel_replicate_size",
            "tensor_parallel_size",
            "pipeline_parallel_size",
            "n_virtual_stages",
            "context_parallel_size",
            "expert_parallel_size",
        ):
            require(getattr(self, name) >= 1, f"{name} {getattr(self, name)} must be at least 1")
        dp, ep = self.data_parallel_size, self.expert_parallel_size
        require(dp % ep == 0, f"expert_parallel_size {ep} does not divide data_parallel_size {dp}")
        copies = self.data_parallel_replicate_size
        require(dp % copies == 0, f"data_parallel_replicate_size {copies} does not divide data_parallel_size {dp}")
        is_sharded = self.sharding in (Sharding.ZERO2, Sharding.ZERO3)
        require(copies == 1 or is_sharded, f"data_parallel_replicate_size {copies} needs sharding zero2 or zero3")

    @property
    def model_parallel_size(self) -> int:
        """Devices that hold one copy of the model together."""
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.context_parallel_size

    @property
    def world_size(self) -> int:
        """Devices in use."""
        return self.data_parallel_size * self.model_parallel_size


@fact
class BatchPlan:
    """Sequences: per data-parallel rank and pass, and per optimizer step over the whole world."""

    micro_batch_size: int
    global_batch_size: int
    data_parallel_size: int

    def __post_init__(self) -> None:
        for name in ("micro_batch_size", "global_batch_size", "data_parallel_size"):
            require(getattr(self, name) >= 1, f"{name} {getattr(self, name)} must be at least 1")
        given, per_pass = self.global_batch_size, self.micro_batch_size * self.data_parallel_size
        below = max(per_pass, given // per_pass * per_pass)
        near = f"{below} or {below + per_pass}" if below < given else str(per_pass)
        require(
            given % per_pass == 0,
            f"global_batch_size {given} is not a multiple of micro_batch_size {self.micro_batch_size} * "
            f"data_parallel_size {self.data_parallel_size} = {per_pass}; use {near}",
        )

    @property
    def n_micro_batches(self) -> int:
        """Passes per rank and optimizer step (gradient accumulation)."""
        return self.global_batch_size // (self.micro_batch_size * self.data_parallel_size)
