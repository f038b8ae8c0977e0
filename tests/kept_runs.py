"""Results as a run would have kept them, on made-up steps whose truth is known."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import stats
from bench.config.compose import compose_plain
from bench.facts.hardware import Backend
from bench.facts.measurement import Environment, Estimate, Measurement, RankSamples, Spread, Survey, Utilization
from bench.facts.result import SCHEMA_VERSION, Result
from bench.run.launches import pooled
from bench.store.results import write_result
from tests.round_numbers import measurement

ENVIRONMENT = Environment(
    host="here",
    platform="Linux",
    python="3.11.7",
    packages={"torch": "2.13.0"},
    cpu="round",
    n_cores=2,
    memory_bytes=8 * 2**30,
    devices=("Round 1",),
    driver="CUDA 13.0",
    variables={},
    started_at="2026-11-25T00:00:00+00:00",
)


def steps_of(rng: np.random.Generator, tokens_per_s: float, n: int, noise: float = 0.011, correlation: float = 0.3) -> NDArray[np.float64]:
    """Step times of 1,024 tokens each: an AR(1) process about their mean, of the standard deviation `noise` over it."""
    shocks = noise * np.sqrt(1 - correlation**2) * rng.standard_normal(n + 50)
    x = np.zeros(n + 50)
    for i in range(1, n + 50):
        x[i] = correlation * x[i - 1] + shocks[i]
    steps: NDArray[np.float64] = 1024 / tokens_per_s * (1 + x[50:])
    return steps


def launch_of(step_s: Sequence[float] | NDArray[np.float64]) -> Measurement:
    """One launch with these timed steps."""
    steps = tuple(float(s) for s in step_s)
    rank = RankSamples(
        rank=0, host="here", warmup_s=(1.0,), step_s=steps, window_s=(sum(steps),), peak_allocated_bytes=1, peak_reserved_bytes=1
    )
    e: Estimate = stats.throughput(steps, 1024, 0.95)
    spread = Spread(
        n_launches=1,
        n_hosts=1,
        within_run_fraction=stats.standard_error(e) / e.value,
        between_launch_fraction=None,
        between_host_fraction=None,
    )
    base = measurement(e.value)
    return replace(base, tokens_per_s=e, step_s=stats.quantiles(steps), ranks=(rank,), steps_per_window=(len(steps),), spread=spread)


@cache
def composed() -> dict[str, Any]:
    """A composed configuration."""
    return compose_plain(["model=tiny", "device=cpu"])


def result_of(*launches: Measurement, **changes: Any) -> Result:
    """The result of these launches."""
    whole = pooled(launches, 0.02)
    result = Result(
        schema_version=SCHEMA_VERSION,
        run_id="made-up",
        run_dir="made-up",
        bench_version="0",
        config=composed(),
        environment=ENVIRONMENT,
        survey=Survey(backend=Backend.CUDA, device_name="Round 1", world_size=1, memory_bytes=1, threads_per_rank=1, trial_flops_per_s={}),
        measurement=whole,
        utilization=Utilization(flops_per_s_per_device=1e12, peak_flops_per_s=None, peak_source="none", mfu_causal=None, mfu_full=None),
        projections=(),
        not_projected=(),
        warnings=(),
        launches=launches if len(launches) > 1 else (),
    )
    return replace(result, **changes)


def kept(folder: Path, result: Result) -> Path:
    """The run directory that holds the result."""
    folder.mkdir(parents=True, exist_ok=True)
    write_result(folder, result)
    return folder
