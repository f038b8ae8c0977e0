"""The coefficients of the cost model: how far each term is from its physical bound, all positive, uncertain in logarithms."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from bench.cost.layout import Array
from bench.errors import UsageError
from bench.facts.prediction import Prior

Coefficients: TypeAlias = Mapping[str, Array]

# Each with what it scales. Fractions and factors have no unit.
MEANINGS: dict[str, str] = {
    "kernel_fraction": "rate of products inside a model over the best single product",
    "kernel_factor_volta": "on it, Volta over Hopper",
    "kernel_factor_ampere": "on it, Ampere over Hopper",
    "kernel_factor_blackwell": "on it, Blackwell over Hopper",
    "kernel_factor_cdna": "on it, AMD CDNA over Hopper",
    "kernel_factor_torch": "on it, PyTorch's own stacks on devices newer than Ampere",
    "fp8_fraction": "the same for fp8 products, over the best single fp8 product and kernel_fraction",
    "fp4_factor": "on it, fp4 products over the best single fp4 product",
    "attention_fraction": "rate of fused attention over that of products",
    "attention_progress_per_year": "on it, per year of the stack",
    "expert_fraction": "rate of an expert's products over that of dense ones",
    "fp8_expert_fraction": "on it, in fp8 and fp4: few rows fill faster units less",
    "score_bytes": "bytes read and written per attention score where scores are stored",
    "traffic_factor": "bytes outside products over those counted",
    "eager_traffic_factor": "on it, stacks that launch operation by operation",
    "compiled_traffic_factor": "on it, with a compiler that fuses",
    "cast_bytes": "bytes per column that casts to fp8 or fp4 move",
    "dispatch_passes": "times that a token's copies for its experts move through memory",
    "logit_bytes": "bytes per logit that the loss moves",
    "recompute_fraction": "time of computing a layer again over its forward pass",
    "launch_floor_s": "least seconds of a layer, forward and backward",
    "launch_floor_eager_factor": "on it, stacks that launch operation by operation",
    "launch_floor_tensor_factor": "on it, with tensor parallelism",
    "launch_floor_expert_s": "added to it by a router and experts",
    "scale_up_fraction": "achieved over nominal rate of a scale-up link",
    "scale_up_latency_s": "seconds of a collective's start",
    "scale_out_fraction": "achieved over nominal rate of a network port",
    "scale_out_decay_per_doubling": "share of it that is lost per doubling of the nodes",
    "scale_out_latency_s": "seconds of an all-reduce per doubling of the domains",
    "ring_step_s": "seconds of an all-gather per further domain",
    "exposed_tensor_fraction": "share of tensor-parallel traffic within a domain that nothing hides",
    "overlapped_tensor_factor": "on it, stacks that overlap it with products",
    "exposed_context_fraction": "share of context-parallel traffic that nothing hides",
    "exposed_expert_fraction": "share of expert-parallel traffic that nothing hides",
    "exposed_pipeline_fraction": "share of pipeline sends that nothing hides",
    "tensor_crossing_s": "seconds of a tensor-parallel call per further domain",
    "blocking_send_s": "seconds of a pipeline send that stops both stages",
    "blocking_inner_factor": "such sends per micro-batch of an inner stage over those of an end",
    "hidden_gradient_fraction": "share of the last backward pass that hides gradients",
    "hidden_zero1_fraction": "the same for a sharded optimizer's traffic sent bucket by bucket",
    "hidden_fsdp_fraction": "share of a pass that hides the traffic of sharded weights",
    "contention_fraction": "share of hidden data-parallel traffic that slows the work that hides it",
    "bucket_bytes": "bytes of gradients that travel together",
    "zero1_call_factor": "ring latencies per bucket of a sharded optimizer",
    "congested_tensor_factor": "ring steps that a tensor-parallel call inside a node waits per rank, on a congested network",
    "congested_gradient_factor": "share of congestion that a collective of gradients feels",
    "congested_zero1_factor": "share of congestion that a bucket of a sharded optimizer feels",
    "optimizer_factor": "time of the optimizer over its bytes",
    "step_overhead_s": "seconds per step outside all of this",
    "straggler_per_doubling": "share of the step that a doubling of the nodes adds",
    "stack_factor": "everything else that differs between stacks",
    "progress_per_year": "speed of software per year of its release",
    "torch_factor": "step of PyTorch's own stacks over Megatron's",
    "deepspeed_factor": "step of DeepSpeed's over Megatron's",
    "jax_factor": "step of JAX's over Megatron's",
}
NAMES = tuple(MEANINGS)


def log_values(prior: Prior) -> Array:
    """Logarithms of the prior's medians, in the order of NAMES. Raises UsageError for a name too many or too few."""
    given = set(prior.coefficients)
    for name in sorted(given.symmetric_difference(NAMES)):
        raise UsageError(
            f"prior.coefficients.{name}: {'unknown' if name in given else 'missing'}; run bench fit-priors to make the file anew"
        )
    return np.log([prior.coefficients[name].value for name in NAMES])


def stack_log_sds(prior: Prior) -> Array:
    """How far stacks differ in each, as a standard deviation of its logarithm."""
    return np.array([prior.coefficients[name].stack_log_sd for name in NAMES])


def log_sds(prior: Prior) -> Array:
    """How unsure the shared value of each is."""
    return np.array([prior.coefficients[name].log_sd for name in NAMES])


def coefficients_of(log_theta: Array) -> Coefficients:
    """The coefficients at these logarithms, shape (len(NAMES),) or (len(NAMES), ...)."""
    return dict(zip(NAMES, np.exp(log_theta), strict=True))
