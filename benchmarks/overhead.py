"""What the harness costs: tokens/s of its measured windows over those of a bare loop, in one process.

    python benchmarks/overhead.py [model=dense_5m train.micro_batch_size=4 device.threads_per_rank=1 ...]

Model, optimizer and batches are the same, one pass per step. Windows are as long as those of a measurement and alternate, so that
a busy machine slows both; the median of the ratios of neighbours counts, and it is to be at least 0.995. The ratio in CPU seconds
stands beside it: with one thread, other processes hardly disturb it.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice

import numpy as np
import torch

from bench.config.compose import compose
from bench.config.resolve import run_spec
from bench.facts.hardware import Backend, Precision
from bench.facts.run import RunSpec
from bench.run.clock import StepClock
from bench.run.data import POOL_STEPS, TokenPool
from bench.run.devices import LocalDevice, find_backend, n_cores
from bench.run.launch import RankPlace, join_world
from bench.run.preempt import Guard
from bench.run.stopping import MOST_STEPS_PER_WINDOW, WINDOW_S
from bench.run.train import Trainer
from bench.run.transformer import Transformer
from bench.run.windows import no_garbage_collection, run_window

PAIRS = 5
TURNS = 4  # windows of each within a pair
Seconds = tuple[float, float]  # wall, CPU
Window = Callable[[int], Seconds]  # of n steps


class CpuClock(StepClock):
    """The harness's own clock, which looks at the CPU seconds of the process as well."""

    cpu_s = 0.0

    def start(self) -> None:
        super().start()
        self.cpu_s = -time.process_time()

    def stop(self) -> tuple[list[float], float]:
        self.cpu_s += time.process_time()
        return super().stop()


def one_device_spec(overrides: Sequence[str]) -> RunSpec:
    """The run on one device that the words describe; a small dense model in bf16 where they say nothing."""
    fixed = ["model=dense_5m", "train.micro_batch_size=4", "train.precision=bf16", f"device.backend={find_backend(None)}"]
    return run_spec(compose([*fixed, f"device.threads_per_rank={n_cores()}", *overrides, "device.n_devices=1"]))


def harness_window(spec: RunSpec, device: LocalDevice) -> Window:
    """A window of the harness."""
    trainer, clock, guard = Trainer(spec, device), CpuClock(device, MOST_STEPS_PER_WINDOW), Guard(before_leaving=print)
    return lambda n_steps: (run_window(trainer, clock, n_steps, guard)[1], clock.cpu_s)


def bare_window(spec: RunSpec, device: LocalDevice) -> Window:
    """The same steps in a loop as anyone would write it, with nothing around it."""
    kind = device.torch_device
    torch.manual_seed(spec.train.seed)
    with kind:
        bare = Transformer(spec.model)
    model = torch.compile(bare) if spec.train.compiled else bare
    optimizer = torch.optim.AdamW(bare.parameters(), lr=spec.train.learning_rate, weight_decay=spec.train.weight_decay, fused=True)
    pool = TokenPool(spec, data_rank=0, device=kind)
    batches = cycle([pool.micro_batch() for _ in range(POOL_STEPS * spec.batch.n_micro_batches)])

    def window(n_steps: int) -> Seconds:
        device.synchronize()
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        for tokens, targets in islice(batches, n_steps):
            with torch.autocast(kind.type, torch.bfloat16, enabled=spec.train.precision is Precision.BF16):
                loss = model(tokens, targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        device.synchronize()
        return time.perf_counter() - begun_s, time.process_time() - begun_cpu_s

    return window


def one_pair(bare: Window, harness: Window, n_steps: int) -> tuple[Seconds, Seconds]:
    """Seconds of the bare loop and of the harness: windows in turn, whoever came second coming first in the next."""
    taken: dict[Window, list[Seconds]] = {bare: [], harness: []}
    for turn in range(TURNS):
        for window in (bare, harness) if turn % 2 else (harness, bare):
            taken[window].append(window(n_steps))
    own, other = (np.sum(taken[window], axis=0) for window in (harness, bare))
    return (other[0], other[1]), (own[0], own[1])


def main(overrides: Sequence[str]) -> None:
    """Nothing; prints every pair and the median ratios."""
    spec = one_device_spec(overrides)
    join_world(RankPlace(rank=0, local_rank=0, world_size=1, local_world_size=1), spec.backend is Backend.CPU, spec.threads_per_rank)
    device = LocalDevice(spec.backend, local_rank=0)
    bare, harness = bare_window(spec, device), harness_window(spec, device)
    wall, cpu = [], []
    with no_garbage_collection():
        bare(3), harness(3)
        n_steps = min(MOST_STEPS_PER_WINDOW, max(2, round(WINDOW_S * 3 / bare(3)[0])))
        print(f"{spec.model.name}, {spec.tokens_per_step} tokens per step, {spec.train.precision}, {spec.threads_per_rank} threads")
        print(f"{PAIRS} pairs of {TURNS} windows of {n_steps} steps\n")
        print(f"{'bare tokens/s':>14} {'harness tokens/s':>17} {'ratio':>8} {'in CPU s':>9}")
        for _ in range(PAIRS):
            other, own = one_pair(bare, harness, n_steps)
            wall.append(other[0] / own[0])
            cpu.append(other[1] / own[1])
            rates = [spec.tokens_per_step * n_steps * TURNS / seconds for seconds, _ in (other, own)]
            print(f"{rates[0]:>14,.0f} {rates[1]:>17,.0f} {wall[-1]:>8.4f} {cpu[-1]:>9.4f}")
    print(f"\nharness over bare, medians: {statistics.median(wall):.4f}, in CPU seconds {statistics.median(cpu):.4f}")


if __name__ == "__main__":
    main(sys.argv[1:])
