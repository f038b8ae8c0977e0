"""How much of the rate of bare matrix products, on the model's own shapes, a training step keeps.

    python benchmarks/matmul_fraction.py [model=dense_60m train.micro_batch_size=4 device.threads_per_rank=1 ...]

A round takes every product of the model once, forward and backward, then one step of the harness; the median over rounds
counts. Attention's own products are part of the step's FLOPs, causal-halved, and not of the bare ones. To be at least 0.6.
CPU seconds stand beside wall seconds: with one thread, other processes hardly disturb them.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.config.compose import compose
from bench.config.resolve import run_spec
from bench.cost.flops import Convention, flops_per_token
from bench.cost.shard import shard_products
from bench.facts.hardware import Backend, Precision
from bench.facts.run import RunSpec
from bench.facts.shard import Product
from bench.run.devices import LocalDevice, find_backend, n_cores
from bench.run.launch import RankPlace, join_world
from bench.run.train import Trainer

ROUNDS = 7
WARMUP_STEPS = 2
DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
Seconds = tuple[float, float]  # wall, CPU


def one_device_spec(overrides: Sequence[str]) -> RunSpec:
    """The run on one device that the words describe; a compute-bound rung in bf16 where they say nothing."""
    fixed = ["model=dense_60m", "train.micro_batch_size=4", "train.precision=bf16", f"device.backend={find_backend(None)}"]
    return run_spec(compose([*fixed, f"device.threads_per_rank={n_cores()}", *overrides, "device.n_devices=1"]))


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
    """Seconds of one call."""
    device.synchronize()
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


def main(overrides: Sequence[str]) -> None:
    """Nothing; prints every round and the medians."""
    spec = one_device_spec(overrides)
    join_world(RankPlace(rank=0, local_rank=0, world_size=1, local_world_size=1), spec.backend is Backend.CPU, spec.threads_per_rank)
    device = LocalDevice(spec.backend, local_rank=0)
    trainer = Trainer(spec, device)
    step_flops = spec.tokens_per_step * flops_per_token(spec.model, Convention.CAUSAL)
    for _ in range(WARMUP_STEPS):
        trainer.step()
    print(f"{spec.model.name}, {spec.tokens_per_step} tokens per step, {spec.train.precision}, {spec.threads_per_rank} threads\n")
    print(f"{'products GFLOP/s':>17} {'step GFLOP/s':>13} {'fraction':>9} {'in CPU s':>9}")
    wall, cpu = [], []
    for _ in range(ROUNDS):
        bare, step_s = bare_rates(spec, device), timed(device, trainer.step)
        wall.append(step_flops / step_s[0] / bare[0])
        cpu.append(step_flops / step_s[1] / bare[1])
        print(f"{bare[0] / 1e9:>17,.0f} {step_flops / step_s[0] / 1e9:>13,.0f} {wall[-1]:>9.3f} {cpu[-1]:>9.3f}")
    print(f"\nfraction, medians of {ROUNDS} rounds: {statistics.median(wall):.3f}, in CPU seconds {statistics.median(cpu):.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
