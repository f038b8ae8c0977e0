"""A model, a device, links and a prior in round numbers, so that a test can be computed by hand."""

from dataclasses import replace
from typing import Any

import numpy as np

from bench.cost.calibrate import Calibration
from bench.cost.coefficients import NAMES, Coefficients, coefficients_of, log_values
from bench.cost.layout import Layout, layout_of
from bench.cost.posterior import condition
from bench.cost.workload import Workload, workload_of
from bench.facts.figure import Figure, Provenance
from bench.facts.hardware import Architecture, Backend, Cluster, Device, Link, Precision
from bench.facts.measurement import Estimate, Measurement, Quantiles, RankSamples, WarmupEnd
from bench.facts.model import ModelShape, Target
from bench.facts.plan import BatchPlan, ParallelPlan
from bench.facts.prediction import Coefficient, Prior, Widths
from bench.facts.stack import Stack, StackFamily


def figure(value: float) -> Figure:
    return Figure(value=value, provenance=Provenance.ASSUMED, source="round number")


# Parameters by hand: attention 4 * 4 * 4 = 64, feed-forward 3 * 4 * 8 = 96, norms 2 * 4 = 8: 168 a layer;
# embedding 10 * 4 = 40, head 40, last norm 4: 4 * 168 + 84 = 756.
TINY = ModelShape(name="tiny", n_layers=4, d_model=4, n_heads=2, n_kv_heads=2, head_dim=2, d_ff=8, vocab_size=10, seq_len=16)
# The same with 4 experts of 96 parameters each in place of the feed-forward, and a router of 4 * 4 = 16.
TINY_EXPERTS = replace(TINY, name="tiny_experts", d_ff=0, n_experts=4, experts_top_k=2, d_ff_expert=8)

DEVICE = Device(
    name="round",
    architecture=Architecture.HOPPER,
    torch_names=("Round 1",),
    aliases=("round",),
    peak_flops_per_s={Precision.BF16: figure(1e15), Precision.FP16: figure(2e15)},
    matmul_flops_per_s={Precision.BF16: figure(1e15)},
    memory_bytes=figure(80e9),
    memory_bytes_per_s=figure(1e12),
    power_w=figure(1000),
    scale_up_domain=8,
    scale_up_bytes_per_s=figure(100e9),
    scale_out_bytes_per_s=figure(10e9),
)
CLUSTER = Cluster(
    name="round_cluster",
    claim="round number",
    n_nodes=8,
    devices_per_node=8,
    device=DEVICE,
    scale_up_domain=8,
    scale_up=Link(bytes_per_s=figure(100e9), latency_s=figure(1e-6)),
    scale_out=Link(bytes_per_s=figure(10e9), latency_s=figure(5e-6)),
    oversubscription=figure(1),
    reduces_in_network=False,
)
# Every fraction and factor 1: rates as stated, nothing hidden. Times and bytes that would be in the way are next to nothing.
NOTHING = 1e-15
ABSENT = {
    *("launch_floor_s", "launch_floor_expert_s", "scale_up_latency_s", "scale_out_latency_s", "ring_step_s", "tensor_crossing_s"),
    *("blocking_send_s", "step_overhead_s", "score_bytes", "traffic_factor", "cast_bytes", "dispatch_passes", "logit_bytes"),
    *("hidden_gradient_fraction", "hidden_zero1_fraction", "hidden_fsdp_fraction", "contention_fraction", "straggler_per_doubling"),
    *("scale_out_decay_per_doubling", "congested_tensor_factor", "congested_gradient_factor", "congested_zero1_factor"),
}


def coefficient(value: float, log_sd: float = 0.1, stack_log_sd: float = 0.0) -> Coefficient:
    return Coefficient(value=value, log_sd=log_sd, stack_log_sd=stack_log_sd, provenance=Provenance.ASSUMED, source="round number")


PRIOR = Prior(
    name="round_prior",
    coefficients={name: coefficient(NOTHING if name in ABSENT else 1.0) for name in NAMES},
    series_log_sd=figure(0.0),
    shape_log_sd=figure(0.0),
    shape_length=figure(2.0),
    scale_log_sd_per_doubling=figure(0.0),
    row_log_sd=figure(1e-6),
    widths=Widths(**{name: figure(1.0) for name in ("cold", "model", "stack", "plans", "experts", "blackwell", "cdna")}),
    published_reach_devices=figure(8192),
    widening_log_sd=figure(0.1),
)
STACK = Stack(
    name="round_stack",
    family=StackFamily.MEGATRON,
    year=2024,
    compiled=False,
    fused_attention=True,
    sequence_parallel=True,
    balanced_stages=False,
    zero_bubble=False,
    hides_gradients=True,
    hides_zero1=True,
    gradient_bytes=4,
    source="round number",
)
CALIBRATION = Calibration(posterior=condition(PRIOR, None), told=("a",), not_told=("b",))
# 8 layers of 12 * 1024^2 parameters, 100 M in all.
SMALL = ModelShape(name="small", n_layers=8, d_model=1024, n_heads=8, n_kv_heads=8, head_dim=128, d_ff=2730, vocab_size=1024, seq_len=1024)
TARGET = Target(name="small_target", model=SMALL, n_tokens=figure(1e9), max_global_batch_size=figure(64))


def with_coefficients(prior: Prior, **values: float) -> Prior:
    """The prior with these medians."""
    changed = {name: replace(prior.coefficients[name], value=value) for name, value in values.items()}
    return replace(prior, coefficients=prior.coefficients | changed)


def uncertain(prior: Prior, log_sd: float) -> Prior:
    """The prior of stacks that differ this much in every coefficient."""
    return replace(prior, coefficients={name: replace(c, stack_log_sd=log_sd) for name, c in prior.coefficients.items()})


def coefficients(**values: float) -> Coefficients:
    """The round coefficients, some of them changed."""
    return coefficients_of(log_values(with_coefficients(PRIOR, **values)))


def work_of(
    plan: Layout, shape: ModelShape | None = None, cluster: Cluster | None = None, stack: Stack = STACK, **changes: float
) -> Workload:
    """The small model under a plan on the round cluster, some fields of the workload changed."""
    work = workload_of(shape or SMALL, plan, cluster or CLUSTER, stack)
    return replace(work, **{name: np.asarray(value, dtype=np.float64) for name, value in changes.items()})


def layout(n_micro: int = 1, micro_batch_size: int = 1, data_parallel_size: int = 1, **sizes: Any) -> Layout:
    """A layout from the sizes that differ from 1."""
    plan = ParallelPlan(data_parallel_size=data_parallel_size, **sizes)
    return layout_of(plan, batch(n_micro, micro_batch_size, data_parallel_size))


def batch(n_micro: int = 1, micro_batch_size: int = 1, data_parallel_size: int = 1) -> BatchPlan:
    return BatchPlan(
        micro_batch_size=micro_batch_size,
        global_batch_size=n_micro * micro_batch_size * data_parallel_size,
        data_parallel_size=data_parallel_size,
    )


def measurement(tokens_per_s: float, **changes: Any) -> Measurement:
    """A run of SMALL on one device, 1,024 tokens per step."""
    rank = RankSamples(
        rank=0, host="here", warmup_s=(1.0,), step_s=(1.0, 1.0), window_s=(2.0,), peak_allocated_bytes=1, peak_reserved_bytes=1
    )
    run = Measurement(
        backend=Backend.CUDA,
        device_name="Round 1",
        world_size=1,
        threads_per_rank=1,
        precision=Precision.BF16,
        compiled=False,
        model=SMALL,
        plan=ParallelPlan(data_parallel_size=1),
        batch=batch(),
        tokens_per_step=1024,
        n_parameters=100,
        warmup_end=WarmupEnd.STEADY,
        steps_per_window=(2,),
        ranks=(rank,),
        tokens_per_s=Estimate(value=tokens_per_s, low=tokens_per_s, high=tokens_per_s, confidence=0.95, n_steps=2, block_length=1),
        step_s=Quantiles(p10=0.9, median=1.0, p90=1.1, p99=1.2),
        setup_s=1.0,
        compile_s=0.0,
        loss_first=5.0,
        loss_last=4.0,
        grad_norm=1.0,
        warnings=(),
        invalid=(),
    )
    return replace(run, **changes)
