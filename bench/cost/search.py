"""Every plan worth pricing for a model on a cluster, as arrays; and the fastest that safely fits."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.cost.coefficients import coefficients_of
from bench.cost.layout import RECOMPUTES, SHARDINGS, Array, Layout
from bench.cost.memory import total_bytes
from bench.cost.posterior import Posterior
from bench.cost.stack_memory import NEED_LOG_SD, stack_memory
from bench.cost.step_time import log_device_s_per_token
from bench.cost.workload import workload_of
from bench.errors import DoesNotFit
from bench.facts.hardware import NARROW, Cluster
from bench.facts.model import ModelShape, Target
from bench.facts.plan import Sharding
from bench.facts.stack import Stack
from bench.facts.units import GIB

MICRO_BATCHES = (1, 2, 4, 8)
CONTEXT_PARALLEL = (1, 2, 4, 8)
# Tokens of a micro-batch on one device, at least: no published run cuts finer (GPT-3 with 2,048 tokens and tensor
# parallelism), and below that launches decide, which the step does not count.
LEAST_TOKENS = 2048
# Chance of fitting, at least, of a plan that is recommended. Assumed: one start in ten may run out of memory, and is then cut.
SAFE_PROBABILITY, SAFE_SDS = 0.9, 1.2815515655446004  # the second is its place on the standard normal
# Shares of the devices that a plan may use: where the largest batch is too small for all, fewer are faster.
SHARES = (1, 2, 4, 8, 16, 32)


def candidate_plans(target: Target, cluster: Cluster, shares: tuple[int, ...] = SHARES) -> Layout:
    """All layouts that obey the rules of parallelism and the largest batch, whether or not they fit into memory.

    Tensor parallelism stays inside a scale-up domain; stages hold equal numbers of layers; experts lie within the data
    axis; the optimizer is sharded (ZeRO-1), or all weights where there is no pipeline (ZeRO-3, FSDP).
    """
    shape = target.model
    grid = _grid(shape, cluster, shares)
    chunked = grid["n_virtual"] > 1  # interleaving needs whole rounds of micro-batches through the pipeline
    largest = np.floor(target.max_global_batch_size.value / grid["micro_batch"])  # micro-batches in a step
    dp = np.floor(cluster.n_devices / (grid["tp"] * grid["cp"] * grid["pp"]) / grid["share"])
    dp = np.minimum(dp, np.floor(largest / np.where(chunked, grid["pp"], 1)))
    dp = np.floor(dp / grid["ep"]) * grid["ep"]
    n_micro = np.floor(largest / np.maximum(dp, 1))
    n_micro = np.where(chunked, np.floor(n_micro / grid["pp"]) * grid["pp"], n_micro)
    layout = Layout(
        dp=dp,
        n_micro=n_micro,
        **{name: grid[name] for name in ("tp", "pp", "n_virtual", "cp", "ep", "sharding", "recompute", "micro_batch")},
    )
    tokens = grid["micro_batch"] * shape.seq_len / grid["cp"]
    legal = (dp >= 1) & ((tokens >= LEAST_TOKENS) | (grid["cp"] == 1))
    legal &= shape.n_layers % (grid["pp"] * grid["n_virtual"]) == 0
    legal &= (grid["pp"] == 1) | (grid["sharding"] == SHARDINGS.index(Sharding.ZERO1))
    return layout.take(np.asarray((grid["pp"] > 1) | ~chunked) & legal)


def _grid(shape: ModelShape, cluster: Cluster, shares: tuple[int, ...]) -> dict[str, Array]:
    depths = divisors(shape.n_layers)
    axes = {
        "tp": [size for size in powers_of_two(cluster.scale_up_domain) if shape.n_kv_heads % size == 0],
        "cp": CONTEXT_PARALLEL,
        "pp": depths,
        "n_virtual": depths,
        "ep": divisors(shape.n_experts) if shape.is_moe else [1],
        "micro_batch": MICRO_BATCHES,
        "sharding": [SHARDINGS.index(Sharding.ZERO1), SHARDINGS.index(Sharding.ZERO3)],
        "recompute": range(len(RECOMPUTES)),
        "share": shares,
    }
    mesh = np.meshgrid(*(np.array(axis, dtype=np.float64) for axis in axes.values()), indexing="ij")
    return {name: values.ravel() for name, values in zip(axes, mesh, strict=True)}


@dataclass(frozen=True, kw_only=True)
class Searched:
    """Every plan that obeys the rules, with what it takes."""

    layout: Layout
    need_bytes: Array  # on the fullest device
    log_pace: Array  # log seconds per token of the whole world; less is faster
    fits: npt.NDArray[np.bool_]
    safe: npt.NDArray[np.bool_]  # fits with a chance of SAFE_PROBABILITY or more

    @property
    def best(self) -> int:
        """Place of the fastest plan that is safe, or of the one that fits with most room where none is."""
        if self.safe.any():
            return int(self.ranked(self.safe)[0])
        return int(np.argmin(self.need_bytes))

    def ranked(self, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
        """Places of the chosen plans, fastest first."""
        places = np.flatnonzero(chosen)
        return np.asarray(places[np.argsort(self.log_pace[places], kind="stable")])

    def front(self) -> npt.NDArray[np.intp]:
        """Places of the fitting plans that no other beats in both speed and memory, fastest first."""
        places = np.flatnonzero(self.fits)
        order = places[np.lexsort((self.need_bytes[places], self.log_pace[places]))]
        least = np.minimum.accumulate(self.need_bytes[order])
        before = np.concatenate([[np.inf], least[:-1]])
        return np.asarray(order[self.need_bytes[order] < before])


def search(target: Target, cluster: Cluster, stack: Stack, posterior: Posterior, shares: tuple[int, ...] = SHARES) -> Searched:
    """All candidate plans, priced at the stack's coefficients. Raises DoesNotFit where none fits."""
    _require_rate(target, cluster)
    layout = candidate_plans(target, cluster, shares)
    need = total_bytes(target.model, layout, stack_memory(stack))
    fits = need <= cluster.device.memory_bytes.value
    if not fits.any():
        raise DoesNotFit(_no_room(target, cluster, layout.take(int(np.argmin(need))), float(need.min())))
    work = workload_of(target.model, layout, cluster, stack, target.precision)
    pace = log_device_s_per_token(work, coefficients_of(posterior.log_theta)) - np.log(layout.n_devices)
    safe = need <= cluster.device.memory_bytes.value * np.exp(-SAFE_SDS * NEED_LOG_SD)
    return Searched(layout=layout, need_bytes=need, log_pace=pace, fits=fits, safe=safe)


def best_plan(target: Target, cluster: Cluster, stack: Stack, posterior: Posterior, shares: tuple[int, ...] = SHARES) -> Layout:
    """The layout with the least time per token among those that fit safely. Raises DoesNotFit where none fits at all."""
    found = search(target, cluster, stack, posterior, shares)
    return found.layout.take(found.best)


def _require_rate(target: Target, cluster: Cluster) -> None:
    known = cluster.device.matmul_flops_per_s
    if target.precision in NARROW and target.precision not in known:
        raise DoesNotFit(
            f"target {target.name} in {target.precision} does not run on {cluster.device.name}, which has no {target.precision} rate; "
            "use target.precision=bf16 or another cluster"
        )


def _no_room(target: Target, cluster: Cluster, smallest: Layout, need_bytes: float) -> str:
    room = cluster.device.memory_bytes.value
    return (
        f"target {target.name} does not fit {cluster.n_devices} x {cluster.device.name}: the smallest plan (tensor {smallest.tp:.0f}, "
        f"pipeline {smallest.pp:.0f}, expert {smallest.ep:.0f}, recompute {RECOMPUTES[int(smallest.recompute)].value}) needs "
        f"{need_bytes / GIB:.1f} GiB of {room / GIB:.1f} GiB per device; give more devices or a device with more memory"
    )


def divisors(number: int) -> list[int]:
    """The divisors of a number, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


def powers_of_two(largest: int) -> list[int]:
    """The powers of two up to `largest`."""
    return [2**k for k in range(largest.bit_length()) if 2**k <= largest]
