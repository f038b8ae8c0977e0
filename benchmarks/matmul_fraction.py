"""How much of the rate of bare matrix products, on the model's own shapes, a training step keeps.

    python benchmarks/matmul_fraction.py [model=dense_60m train.micro_batch_size=4 device.threads_per_rank=1 ...]
    torchrun --nproc_per_node=2 benchmarks/matmul_fraction.py     (the same over data-parallel ranks, gradients exchanged)

A round takes every product of the model once, forward and backward, then one step of the harness; the median over rounds
counts. Ranks work at the same time: rates are sums over them, the fraction is their mean. Attention's own products are part of
the step's FLOPs, causal-halved, and not of the bare ones. To be at least 0.6. CPU seconds stand beside wall seconds: with one
thread, other processes hardly disturb them.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from accelerate.utils import gather_object
from torch import Tensor

from bench.config.compose import compose
from bench.config.resolve import run_spec
from bench.cost.flops import Convention, flops_per_token
from bench.cost.shard import shard_products
from bench.facts.hardware import Backend, Precision
from bench.facts.run import RunSpec
from bench.facts.shard import Product
from bench.run.devices import LocalDevice, find_backend, n_cores
from bench.run.launch import RankPlace, find_place, join_world
from bench.run.train import Trainer

ROUNDS = 7
WARMUP_STEPS = 2
DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
Seconds = tuple[float, float]  # wall, CPU


def spec_of(overrides: Sequence[str], place: RankPlace) -> RunSpec:
    """The data-parallel run that the words describe; a compute-bound rung in bf16 where they say nothing."""
    fixed = ["model=dense_60m", "train.micro_batch_size=4", "train.precision=bf16", f"device.backend={find_backend(None)}"]
    fixed += [f"device.threads_per_rank={max(1, n_cores() // place.local_world_size)}"]
    sizes = (f"device.n_devices={place.world_size}", f"plan.data_parallel_size={place.world_size}")
    return run_spec(compose([*fixed, *overrides, *sizes]))


def model_products(spec: RunSpec) -> list[tuple[Product, int]]:
    """Every product of a step, forward and backward, and how often it runs."""
    forward = shard_products(spec.model, spec.plan, spec.batch.micro_batch_size)
    often = [1 if p.name == "head" else p.n_alike * spec.model.n_layers for p in forward]
    return [(q, n) for p, n in zip(forward, often, strict=True) for q in (p, *p.gradients())]


def operands(p: Product, spec: RunSpec, device: LocalDevice) -> tuple[Tensor, Tensor]:
    """The two matrices, the second one laid out as a layer keeps its weight."""
    dtype = DTYPES[spec.train.precision]
    a = torch.randn(p.n_batch, p.m, p.k, device=device.torch_device).to(dtype)
    return a, torch.randn(p.n_batch, p.n, p.k, device=device.torch_device).to(dtype).transpose(1, 2)


def timed(device: LocalDevice, call: Callable[[], object]) -> Seconds:
    """Seconds of one call, which all ranks begin together."""
    device.synchronize()
    gather_object([0])
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    call()
    device.synchronize()
    return time.perf_counter() - begun_s, time.process_time() - begun_cpu_s


def bare_rates(spec: RunSpec, device: LocalDevice) -> tuple[float, float]:
    """FLOP/s of the model's products, one after the other, in wall and in CPU seconds."""
    total, taken = 0.0, [0.0, 0.0]
    for p, often in model_products(spec):
        a, b = operands(p, spec, device)
        torch.bmm(a, b)
        seconds = timed(device, lambda a=a, b=b: torch.bmm(a, b))
        total += often * p.flops
        taken = [t + often * s for t, s in zip(taken, seconds, strict=True)]
    return total / taken[0], total / taken[1]


def one_round(spec: RunSpec, device: LocalDevice, trainer: Trainer) -> tuple[float, float, float, float]:
    """FLOP/s of the bare products and of a step, over all ranks, and the fraction in wall and in CPU seconds, their mean over ranks."""
    share_flops = spec.tokens_per_step * flops_per_token(spec.model, Convention.CAUSAL) / spec.world_size
    bare, step_s = bare_rates(spec, device), timed(device, trainer.step)
    own = (bare[0], share_flops / step_s[0], share_flops / step_s[0] / bare[0], share_flops / step_s[1] / bare[1])
    products, steps, wall, cpu = (sum(column) for column in zip(*gather_object([own]), strict=True))
    return products, steps, wall / spec.world_size, cpu / spec.world_size


def main(overrides: Sequence[str]) -> None:
    """Nothing; prints every round and the medians."""
    place = find_place(os.environ) or RankPlace(rank=0, local_rank=0, world_size=1, local_world_size=1)
    spec = spec_of(overrides, place)
    join_world(place, spec.backend is Backend.CPU, spec.threads_per_rank)
    device = LocalDevice(spec.backend, place.local_rank)
    trainer = Trainer(spec, device)
    tell = print if place.rank == 0 else lambda *_: None
    for _ in range(WARMUP_STEPS):
        trainer.step()
    size = f"{spec.world_size} ranks of {spec.threads_per_rank} threads"
    tell(f"{spec.model.name}, {spec.tokens_per_step} tokens per step, {spec.train.precision}, {size}\n")
    tell(f"{'products GFLOP/s':>17} {'step GFLOP/s':>13} {'fraction':>9} {'in CPU s':>9}")
    rounds = []
    for _ in range(ROUNDS):
        rounds.append(one_round(spec, device, trainer))
        products, steps, wall, cpu = rounds[-1]
        tell(f"{products / 1e9:>17,.0f} {steps / 1e9:>13,.0f} {wall:>9.3f} {cpu:>9.3f}")
    wall, cpu = (statistics.median(column) for column in list(zip(*rounds, strict=True))[2:])
    tell(f"\nfraction, medians of {ROUNDS} rounds: {wall:.3f}, in CPU seconds {cpu:.3f}")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
