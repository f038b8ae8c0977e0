"""A published row to workloads: its hardware and software from what it names, empty cells of the plan by what could have run.

Where a cell of the set-up is empty, every value that fits the device's memory is a completion; those that the model without any
fit finds faster weigh more, since people publish runs that they have tuned.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.cost.coefficients import coefficients_of, log_values
from bench.cost.layout import RECOMPUTES, SHARDINGS, Array, Layout
from bench.cost.memory import total_bytes
from bench.cost.step_time import log_device_s_per_token
from bench.cost.table import Table
from bench.cost.workload import REFERENCE_YEAR, Workload, concatenate, device_columns, model_columns, plan_columns, stack_columns
from bench.errors import UsageError
from bench.facts.hardware import HALF, NARROW, Device, Precision
from bench.facts.model import ModelShape, Position
from bench.facts.plan import Recompute, Sharding
from bench.facts.prediction import Prior
from bench.facts.published import PublishedSetup
from bench.facts.stack import Stack, StackFamily

MOST_COMPLETIONS = 24  # of a row
ROOM = 0.92  # of the device's memory that a completion may need
TUNING = 8.0  # a completion slower by a factor f weighs f^-8 of the fastest
PROBE_BYTES = 2.0**28
HEALTHY_GATHER_BYTES_PER_S = 250e9  # bus bandwidth of the probe within a node: of 45 probes on 8 H100, 241 to 265
SELECTIVE_TORCH = 0.2  # share of a layer that torch's selective checkpointing computes again: every other product of some
PARTIAL = 0.25  # the same where the source names a few operations
FULL_RECOMPUTE_UNTIL = 2021  # before selective recomputation, Korthikanti et al. 2022, every large run recomputed all
SCORES_STORED_UNTIL = 2022  # FlashAttention, Dao et al. 2022, came into training stacks in 2023
NVLINK_CUT = 200e9  # H800 and A800: 400 GB/s in both directions
PCIE = 20e9  # achieved by pairs over PCIe 4


SHARDED = {
    "fsdp": Sharding.ZERO3,
    "hsdp": Sharding.ZERO3,
    "zero1": Sharding.ZERO1,
    "dist-opt": Sharding.ZERO1,
    "zero2": Sharding.ZERO2,
}


@dataclass(frozen=True)
class RowPlan:
    """One completion of the plan's cells."""

    tp: float
    pp: float
    n_virtual: float
    cp: float
    ep: float
    dp: float
    micro_batch: float
    n_micro: float
    recompute: float
    sharding: str
    shard_ranks: float


def table_of(setups: Sequence[PublishedSetup], devices: Mapping[str, Device], physical: Prior) -> Table:
    """The rows to predict. Raises UsageError for the first that cannot be expressed."""
    works: list[Workload] = []
    owner: list[int] = []
    for row, setup in enumerate(setups):
        mine = completions(setup, devices)
        works += mine
        owner += [row] * len(mine)
    work, owners = concatenate(works), np.array(owner, dtype=np.intp)
    names = {series: i for i, series in enumerate(dict.fromkeys(setup.series for setup in setups))}
    series = np.array([names[setup.series] for setup in setups], dtype=np.intp)
    return Table(work=work, owner=owners, weight=_weights(work, owners, physical), series=series)


def _weights(work: Workload, owner: npt.NDArray[np.intp], physical: Prior) -> Array:
    time = log_device_s_per_token(work, coefficients_of(log_values(physical)))
    first = np.searchsorted(owner, np.arange(owner[-1] + 1))
    fastest = np.minimum.reduceat(time, first)[owner]
    weight = np.exp(-TUNING * (time - fastest))
    return np.asarray(weight / np.add.reduceat(weight, first)[owner])


def completions(setup: PublishedSetup, devices: Mapping[str, Device]) -> list[Workload]:
    """Every workload that a row may have been."""
    device = devices.get(setup.gpu)
    if device is None:
        raise UsageError(f"gpu: '{setup.gpu}' is not among {', '.join(sorted(devices))}")
    if not setup.n_devices:
        raise UsageError("n_gpus: is empty; a prediction needs the number of devices")
    shape, stack = shape_of(setup), stack_of(setup)
    plans = fitting_plans(setup, shape, stack, device)
    return [_workload(setup, shape, stack, device, plan) for plan in plans]


def shape_of(setup: PublishedSetup) -> ModelShape:
    """The model; where only its parameters are known, one of their usual proportions (d_model 128 times n_layers)."""
    d_model, n_layers = setup.d_model, setup.n_layers
    if d_model is None or n_layers is None:
        parameters = (setup.params_total_b or 7.0) * 1e9
        d_model = max(128.0, round((parameters / 12 * 128) ** (1 / 3) / 128) * 128.0)
        n_layers = max(1.0, round(parameters / 12 / d_model**2))
    heads = int(setup.n_heads or max(1, round(d_model / 128)))
    kv_heads = int(setup.n_kv_heads or heads)
    experts = int(setup.n_experts or 0) if setup.is_moe else 0
    d_ff = int(setup.d_ff if setup.d_ff is not None else 4 * d_model)
    return ModelShape(
        name=setup.id or "row",
        n_layers=int(n_layers),
        d_model=int(d_model),
        n_heads=heads,
        n_kv_heads=kv_heads if heads % kv_heads == 0 else heads,
        head_dim=max(1, round(d_model / heads)),
        d_ff=0 if experts else max(1, d_ff),
        vocab_size=int(setup.vocab_size or 50000),
        seq_len=int(setup.seq_len or (4096 if (setup.year or REFERENCE_YEAR) >= 2023 else 2048)),
        gated=setup.gated,
        position=Position.LEARNED,  # adds one small table; an odd head_dim is allowed
        tied_embedding=setup.tied_embedding,
        n_experts=experts,
        experts_top_k=int(setup.experts_top_k or 1) if experts else 0,
        d_ff_expert=int(setup.moe_d_ff or d_ff) if experts else 0,
    )


FAMILIES: tuple[tuple[StackFamily, str], ...] = (
    (StackFamily.TORCH, "fsdp|torchtitan|nanotron|picotron|olmo|composer|lit-gpt|xformers|colossal|pytorch"),
    (StackFamily.DEEPSPEED, "deepspeed|neox|sagemaker|metaseq"),
    (StackFamily.JAX, "maxtext|jax"),
)


# They run tensor-parallel traffic beside products (tp_comm_overlap in the same settings), and reduce gradients in bf16 where speed is
# published: grad_sync_dtype: bf16 (NVIDIA/NeMo-Framework-Launcher at 056a90e,
# conf/training/gpt3/175b_performance.yaml), grad_reduce_in_fp32 = False (performance settings of NVIDIA/NeMo's recipes and
# set_basic_perf_overrides of NVIDIA-NeMo/Megatron-Bridge). Megatron-LM itself reduces them in fp32.
NEMO = "nemo|megatron-bridge"


def family_of(framework: str) -> StackFamily:
    """The line of descent that a framework's name tells; Megatron's where it tells none, as most published runs."""
    found = (family for family, words in FAMILIES if re.search(words, framework.lower()))
    return next(found, StackFamily.MEGATRON)


def stack_of(setup: PublishedSetup) -> Stack:
    """The software that a row names."""
    family, options = family_of(setup.framework), setup.setup_options
    year = int(setup.year or REFERENCE_YEAR)
    old = year <= SCORES_STORED_UNTIL or family is StackFamily.DEEPSPEED
    copied = setup.sharding not in ("fsdp", "hsdp")
    half = family is StackFamily.DEEPSPEED or (family is StackFamily.TORCH and not copied)
    nemo = re.search(NEMO, setup.framework.lower()) is not None
    half = half or nemo
    sequence = options.get("sequence_parallel")
    return Stack(
        name=setup.framework or "unknown",
        family=family,
        year=year,
        compiled=options.get("compile") == "yes" or "compile" in setup.framework.lower(),
        fused_attention=not old,
        sequence_parallel=sequence == "yes" or (sequence != "no" and year >= 2022 and family is not StackFamily.DEEPSPEED),
        balanced_stages=family is not StackFamily.MEGATRON,
        zero_bubble="hai-llm" in setup.framework.lower(),  # DualPipe (arXiv 2412.19437), counted as ZB-H1
        overlaps_tensor=nemo,
        hides_gradients=options.get("dp_overlap") != "no",
        hides_zero1="internevo" in setup.framework.lower(),  # its documented default: overlap_sync_grad and overlap_sync_param
        gradient_bytes=2 if half else 4,
        source=setup.source or "the row",
    )


def fitting_plans(setup: PublishedSetup, shape: ModelShape, stack: Stack, device: Device) -> list[RowPlan]:
    """The completions that fit; the one that needs least where none does."""
    plans = _plans(setup, stack)
    need = np.array([_need_bytes(shape, plan) for plan in plans])
    room = ROOM * device.memory_bytes.value
    fitting = [plan for plan, bytes_ in zip(plans, need, strict=True) if bytes_ <= room] or [plans[int(np.argmin(need))]]
    if len(fitting) > MOST_COMPLETIONS:
        fitting = fitting[:: -(-len(fitting) // MOST_COMPLETIONS)]
    return [_sharded(setup, shape, plan, room) for plan in fitting]


def _plans(setup: PublishedSetup, stack: Stack) -> list[RowPlan]:
    cp, ep, found = setup.cp or 1.0, setup.ep or 1.0, []
    for tp, pp in _axes(setup, stack.family):
        dp = max(1.0, (setup.n_devices or 1.0) / (tp * pp * cp))
        sharding = _sharding(setup, stack.family, tp * pp)
        for micro, recompute, chunks in product(_micro_batches(setup, dp), _recomputes(setup, stack), _chunks(setup, stack, pp)):
            for n_micro in _passes(setup, dp, micro, pp, sharding):
                found.append(RowPlan(tp, pp, chunks, cp, min(ep, dp * cp * tp), dp, micro, n_micro, recompute, sharding, math.inf))
    return found


def _axes(setup: PublishedSetup, family: StackFamily) -> list[tuple[float, float]]:
    n = setup.n_devices or 1.0
    if setup.tp is not None:
        return [(setup.tp or 1.0, setup.pp or 1.0)]
    if family in (StackFamily.TORCH, StackFamily.JAX):
        return [(1.0, setup.pp or 1.0)]
    sizes = (1.0, 2.0, 4.0, 8.0)
    grid = [(tp, pp) for tp in sizes for pp in ([setup.pp] if setup.pp else sizes) if tp * pp <= n and n % (tp * pp) == 0]
    return grid or [(1.0, 1.0)]


def _sharding(setup: PublishedSetup, family: StackFamily, model_parallel: float) -> str:
    whole = family in (StackFamily.TORCH, StackFamily.JAX) and model_parallel == 1
    return setup.sharding or ("fsdp" if whole else "dist-opt")


def _micro_batches(setup: PublishedSetup, dp: float) -> list[float]:
    most = max(1.0, (setup.global_batch or math.inf) / dp)
    if setup.micro_batch:
        return [min(setup.micro_batch, most)]
    return [size for size in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0) if size <= most]


def _recomputes(setup: PublishedSetup, stack: Stack) -> list[float]:
    named = {"none": 0.0, "full": 1.0, "selective": SELECTIVE_TORCH if stack.family is StackFamily.TORCH else 0.0}
    if setup.recompute in named:
        return [named[setup.recompute]]
    if setup.recompute.startswith("partial"):
        return [PARTIAL]
    return [1.0] if stack.year <= FULL_RECOMPUTE_UNTIL else [0.0, 1.0]


def _chunks(setup: PublishedSetup, stack: Stack, pp: float) -> list[float]:
    if setup.n_virtual:
        return [setup.n_virtual]
    interleaves = pp > 1 and stack.family is StackFamily.MEGATRON and stack.year >= 2021
    return [1.0, 2.0] if interleaves else [1.0]


def _passes(setup: PublishedSetup, dp: float, micro: float, pp: float, sharding: str) -> list[float]:
    if setup.global_batch:
        return [max(1.0, setup.global_batch / (micro * dp))]
    if sharding in ("fsdp", "hsdp") or dp * pp == 1:
        return [1.0]
    return [4 * pp, 16 * pp] if pp > 1 else [1.0, 8.0]


def _need_bytes(shape: ModelShape, plan: RowPlan) -> float:
    recompute = Recompute.FULL if plan.recompute == 1 else Recompute.NONE
    return float(total_bytes(shape, layout_of_plan(plan, SHARDED.get(plan.sharding, Sharding.NONE), recompute)))


def layout_of_plan(plan: RowPlan, sharding: Sharding, recompute: Recompute, replicate: float = 1.0) -> Layout:
    """The layout of a completion."""
    numbers = {"dp": plan.dp, "tp": plan.tp, "pp": plan.pp, "n_virtual": plan.n_virtual, "cp": plan.cp, "ep": plan.ep}
    numbers |= {"micro_batch": plan.micro_batch, "n_micro": plan.n_micro, "replicate": replicate}
    kinds = {"sharding": SHARDINGS.index(sharding), "recompute": RECOMPUTES.index(recompute)}
    return Layout(**{name: np.asarray(value, dtype=np.float64) for name, value in {**numbers, **kinds}.items()})


def _sharded(setup: PublishedSetup, shape: ModelShape, plan: RowPlan, room: float) -> RowPlan:
    """The plan with the ranks that share its shards: those given, those that a node has, or as many as memory asks for."""
    node, given = setup.devices_per_node or 8.0, setup.setup_options.get("shard_group", "")
    if plan.sharding != "hsdp":
        inside_node = "internevo" in setup.framework.lower() and not given  # its documented default: zero1 over 8 ranks
        ranks = float(given) if given.isdigit() else node if inside_node else math.inf
        return RowPlan(**{**vars(plan), "shard_ranks": ranks})
    ranks = float(given) if given.isdigit() else node
    recompute = Recompute.FULL if plan.recompute == 1 else Recompute.NONE
    while not given.isdigit() and ranks < plan.dp * plan.cp:
        layout = layout_of_plan(RowPlan(**{**vars(plan), "dp": ranks / plan.cp}), Sharding.ZERO3, recompute)
        if float(total_bytes(shape, layout)) <= room:
            break
        ranks *= 2
    return RowPlan(**{**vars(plan), "shard_ranks": ranks})


def _workload(setup: PublishedSetup, shape: ModelShape, stack: Stack, device: Device, plan: RowPlan) -> Workload:
    layout = layout_of_plan(plan, SHARDED.get(plan.sharding, Sharding.NONE), Recompute.NONE)
    columns: dict[str, Any] = {**model_columns(shape), **plan_columns(layout, stack), **stack_columns(stack), **_site(setup, device)}
    told = {
        "full_recompute": np.asarray(plan.recompute),
        "selective_recompute": np.asarray(float(setup.recompute == "selective")),
        "one_reduce_scatter": np.asarray(float(plan.sharding in ("dist-opt", "zero2"))),
        "shard_ranks": np.asarray(plan.shard_ranks),
        "blocking_sends": np.asarray(float(setup.software_state == "before_pipeline_fix")),
    }
    return Workload(**(columns | told))


def _site(setup: PublishedSetup, device: Device) -> dict[str, Any]:
    precision = _precision(setup, device)
    node = setup.devices_per_node or 8.0
    numbers = {
        "node_devices": node,
        "domain_devices": device.scale_up_domain if device.scale_up_domain > 8 else min(node, 8.0),
        "scale_up_bytes_per_s": _scale_up(setup, device),
        "node_out_bytes_per_s": node_out_bytes_per_s(setup, device, node),
        "out_latency_s": 0.0,
        "oversubscription": 1.0,
        "reduces_in_network": 0.0,
        "ring_step_s": _ring_step_s(setup, node),
    }
    return {**{name: np.asarray(value, dtype=np.float64) for name, value in numbers.items()}, **device_columns(device, precision)}


def _precision(setup: PublishedSetup, device: Device) -> Precision:
    """Of the linear layers: nvfp4 and mxfp4 are fp4, mxfp8 is fp8; bf16 where the row does not tell."""
    told = next((one for one in (*NARROW, *HALF) if one.value in setup.precision), None)
    if told is None and setup.precision:
        raise UsageError(f"precision: {setup.precision} given; it must be one of {', '.join((*HALF, *NARROW))}, or have it in its name")
    if told in NARROW and told not in device.matmul_flops_per_s:
        raise UsageError(f"precision: {setup.precision} given; {device.name} has no {told} rate")
    return told if told in NARROW else Precision.BF16


def _scale_up(setup: PublishedSetup, device: Device) -> float:
    text = setup.intra_node_net + setup.setup_options.get("gpu_variant", "")
    if "PCIe" in text:
        return PCIE
    return NVLINK_CUT if re.search("[ah]800", text.lower()) else device.scale_up_bytes_per_s.value


def node_out_bytes_per_s(setup: PublishedSetup, device: Device, node: float) -> float:
    """Bytes per second and direction of all ports of a node, from the words of the source; else of the device's usual node."""
    text = setup.inter_node_net
    match = re.search(r"(?:(\d+)\s*x\s*)?([\d.]+)\s*([GT])([bB])/s", text)
    if match is None or "total" in text:  # "8x(500GB/s total)" counts ports together and says no more than the device's usual node
        return device.scale_out_bytes_per_s.value * node
    ports, rate, prefix, unit = match.groups()
    return float(ports or 1) * float(rate) * (1e9 if prefix == "G" else 1e12) / (8 if unit == "b" else 1)


def _ring_step_s(setup: PublishedSetup, node: float) -> float:
    """Seconds that each node adds to an all-gather of 256 MB, from the job's own probe; nan where there is none."""
    rate, nodes = setup.probe_all_gather_bytes_per_s, (setup.n_devices or 1.0) / node
    if not rate or nodes <= 1:
        return math.nan
    return max(1e-5, (PROBE_BYTES / rate - PROBE_BYTES / HEALTHY_GATHER_BYTES_PER_S) / (nodes - 1))
