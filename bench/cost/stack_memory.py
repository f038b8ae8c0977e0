"""What a stack of training software holds in memory beyond the textbook's count, and how sure that count is.

The constants of eager stacks are fitted to one open sweep of plans (HF nanotron Ultra-Scale Playbook, bench_final2_mod_add.csv in
gkarfakis19/Rapid-LLM at 317a2cb: 1,027 runs with the memory that pipeline stage 0 reserved, 372 that ran out of memory), those of
the verdict to both. tests/golden/test_memory_published.py scores them and fits them again to one model size alone.
"""

from dataclasses import dataclass

from bench.facts.stack import Stack, StackFamily
from bench.facts.units import GIB

FP32_BYTES = 4
CONTEXT_BYTES = 2 * GIB  # CUDA context, kernels, communication buffers: what the allocator does not see
# Of the logarithm of the need: a probit of "ran out" over 1,399 runs, those that fit and those that did not weighing alike.
NEED_LOG_SD = 0.14


@dataclass(frozen=True, kw_only=True)
class StackMemory:
    """How a stack holds its state and its activations."""

    gradient_bytes: float  # of a parameter, all copies of its gradient
    element_wise_kept: bool  # rotated queries and keys, the attention output put in order and the activated gate are kept as well
    live_layers: float  # in the backward pass, beyond those kept: activations and their gradients
    logit_bytes: float  # of one logit, at the peak
    gathered_bytes: float  # per token of all tensor-parallel ranks and column of the model, while a layer is worked on
    waiting_bytes: float  # the same per layer, where no pipeline send makes the host wait until gathered inputs are free again
    balanced_stages: bool  # layers are dealt to stages by cost, the head counted; else in equal numbers
    reserved_fraction: float  # of what is held, that the allocator reserves on top
    reserved_bytes: float  # whatever is held
    need_fraction: float  # of what is held, that has to be free on top for a run to live


# Fused kernels, sequence parallelism that gathers again in the backward pass; bf16 weights, one fp32 gradient.
# Logits: fp32 probability and its gradient. 3 to 7 % between allocated and reserved: SimuMax's B200 runs of Megatron-LM, 2026.
FUSED = StackMemory(
    gradient_bytes=4,
    element_wise_kept=False,
    live_layers=2,
    logit_bytes=8,
    gathered_bytes=0,
    waiting_bytes=0,
    balanced_stages=False,
    reserved_fraction=0.05,
    reserved_bytes=CONTEXT_BYTES,
    need_fraction=0.05,
)
# PyTorch without a compiler, gradients added up in fp32 (nanotron): a bf16 gradient beside the fp32 one; logits in bf16, fp32, their
# exponentials and gradient (10 to 16 bytes); two gathered inputs of column-parallel products and their gradients, in bf16.
# Fitted to the 1,027 reserved figures, which they meet within 6.5 % in the median and 20.5 % at the 90th percentile: waiting_bytes,
# reserved_fraction, reserved_bytes. Fitted to 1,399 verdicts, of which 97.6 % come out right, both kinds weighing alike: need_fraction.
EAGER = StackMemory(
    gradient_bytes=6,
    element_wise_kept=True,
    live_layers=1,
    logit_bytes=12,
    gathered_bytes=8,
    waiting_bytes=1.84,
    balanced_stages=True,
    reserved_fraction=0.0043,
    reserved_bytes=0.267 * GIB,
    need_fraction=0.18,
)


def stack_memory(stack: Stack) -> StackMemory:
    """How a stack holds its memory: eager PyTorch with fp32 gradients as the sweep did, all others as the textbook counts.

    FSDP in bf16 is among the others: 223 published runs of LLM Foundry with micro-batches tuned to the memory need 0.97 of it in the
    median by that count, 1.2 of it by the sweep's.
    """
    eager = stack.family is StackFamily.TORCH and not stack.compiled
    return EAGER if eager and stack.gradient_bytes == FP32_BYTES else FUSED
