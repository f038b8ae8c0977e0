"""The software that a training run goes through, as far as it moves the speed."""

from enum import StrEnum

from bench.facts.figure import fact, require


class StackFamily(StrEnum):
    """Lines of descent of training software; each has its own cost of launching and of memory-bound operations."""

    MEGATRON = "megatron"  # Megatron-LM, Megatron-Core, NeMo and what is built on them
    DEEPSPEED = "deepspeed"  # DeepSpeed with or without Megatron's layers
    TORCH = "torch"  # PyTorch's own FSDP, tensor and pipeline parallelism
    JAX = "jax"  # MaxText and kin


@fact
class Stack:
    """A stack of training software."""

    name: str
    family: StackFamily
    year: int  # of the release
    compiled: bool  # element-wise work fused by a compiler
    fused_attention: bool  # scores are never stored (FlashAttention and kin)
    sequence_parallel: bool  # norms are split over the tensor-parallel ranks
    balanced_stages: bool  # layers are dealt to pipeline stages by cost, the head counted; else in equal numbers
    zero_bubble: bool = False  # weight gradients fill the pipeline's idle time (ZB-H1; DualPipe is counted as it), memory as with 1F1B
    overlaps_tensor: bool = False  # tensor-parallel traffic runs beside the products that need it, piece by piece
    hides_gradients: bool  # data-parallel traffic runs behind the last backward pass
    hides_zero1: bool  # so does that of a sharded optimizer
    gradient_bytes: int  # of one gradient on the wire
    source: str

    def __post_init__(self) -> None:
        require(2015 <= self.year <= 2100, f"year {self.year} must lie between 2015 and 2100")
        require(self.gradient_bytes in (2, 4), f"gradient_bytes {self.gradient_bytes} must be 2 or 4")
        require(bool(self.source.strip()), f"source of the stack {self.name} is empty; name where it comes from")
