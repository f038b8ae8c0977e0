"""Planted faults: a test hook. Ranks read BENCH_PLANT; without it the trainer is used as it is, and nothing here costs anything.

slow_rank:RANK:SECONDS   that rank sleeps before every step
drift:SECONDS            every rank's n-th step takes n times so much longer
nan:STEP                 before that step every parameter becomes not-a-number
hang:RANK:STEP           that rank does not come to that step
hoard:RANK:STEP          that rank takes memory until there is no more
clock:STEP:SECONDS       before that step the wall clock jumps
abort:RANK:STEP          that rank, if it came so far, aborts when all is done and the C runtime takes itself down
"""

import ctypes
import math
import os
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from bench.errors import UsageError
from bench.run.train import Trainer

FOREVER_S = 3600.0
HOARD_BYTES = 2**30
Fault = Callable[[Trainer, int], None]


class PlantedTrainer:
    """A trainer with a fault before every step."""

    def __init__(self, trainer: Trainer, fault: Fault) -> None:
        self._trainer, self._fault, self._n = trainer, fault, 0

    def step(self) -> Tensor:
        self._n += 1
        self._fault(self._trainer, self._n)
        return self._trainer.step()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)


def planted(trainer: Trainer) -> Trainer:
    """The trainer itself, or one with the fault that BENCH_PLANT names."""
    text = os.environ.get("BENCH_PLANT", "")
    return cast(Trainer, PlantedTrainer(trainer, fault_of(text))) if text else trainer


def fault_of(text: str) -> Fault:
    """The fault that a text such as `slow_rank:1:0.05` describes."""
    match text.split(":"):
        case ["slow_rank", rank, seconds]:
            return lambda trainer, _: time.sleep(float(seconds) if trainer.rank == int(rank) else 0.0)
        case ["drift", seconds]:
            return lambda _, n: time.sleep(n * float(seconds))
        case ["nan", step]:
            return lambda trainer, n: _spoil(trainer) if n == int(step) else None
        case [("hang" | "hoard" | "abort") as kind, rank, step]:
            return lambda trainer, n: AT_A_STEP[kind](trainer) if (trainer.rank, n) == (int(rank), int(step)) else None
        case ["clock", step, seconds]:
            return lambda _, n: _move_clock(float(seconds)) if n == int(step) else None
    raise UsageError(f"BENCH_PLANT: {text} given; use slow_rank:RANK:SECONDS or another of bench/run/plant.py, or unset it")


def _hang(_: Trainer) -> None:
    time.sleep(FOREVER_S)


def _hoard(trainer: Trainer) -> None:
    hoard, device = [], trainer.passes.parameters[0].device
    while True:
        hoard.append(torch.empty(HOARD_BYTES, dtype=torch.uint8, device=device))  # on a CPU addresses alone: tests set a limit on them


def _move_clock(seconds: float) -> None:
    wall_s, wall_ns = time.time, time.time_ns
    time.time = lambda: wall_s() + seconds
    time.time_ns = lambda: wall_ns() + int(seconds * 1e9)


def _abort(_: Trainer) -> None:
    c = ctypes.CDLL(None)
    c.__cxa_atexit(c.abort, None, None)


AT_A_STEP: dict[str, Callable[[Trainer], None]] = {"hang": _hang, "hoard": _hoard, "abort": _abort}


@torch.no_grad()
def _spoil(trainer: Trainer) -> None:
    for parameter in trainer.passes.parameters:
        parameter.fill_(math.nan)
