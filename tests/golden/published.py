"""Published runs as facts, and the fit of the prior to the small ones."""

import csv
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, log, sqrt
from pathlib import Path
from typing import Any

from bench.codec import decode
from bench.config.compose import compose_plain
from bench.cost.draws import medians
from bench.cost.layout import Layout, layout_of
from bench.cost.step_time import Job, step_s
from bench.facts.figure import Parameter
from bench.facts.hardware import Cluster
from bench.facts.model import ModelShape
from bench.facts.plan import BatchPlan, ParallelPlan, Recompute, Sharding
from bench.facts.prediction import Prior

HERE = Path(__file__).parent
N_FITTED = 3  # parameters of the prior that the small runs decide
# A cluster with the links of each device's usual node; sizes are the row's.
CLUSTERS = {"h100_sxm": "nvidia_eos", "a100_sxm_80gb": "megascale_12k_a100", "b200_sxm": "blackwell_300k_b200"}


@dataclass(frozen=True)
class Setup:
    """What a published run was, without what it reached."""

    id: str
    stack: str
    device: str
    shape: ModelShape
    plan: ParallelPlan
    batch: BatchPlan
    overlaps: bool

    @property
    def layout(self) -> Layout:
        return layout_of(self.plan, self.batch)


def read(name: str) -> dict[str, tuple[Setup, float]]:
    """Set-up and observed tokens per second of one device, by id."""
    with (HERE / name).open() as file:
        return {row["id"]: (_setup(row), float(row["tokens_per_s_per_device"])) for row in csv.DictReader(file)}


def _setup(row: dict[str, str]) -> Setup:
    def n(name: str) -> int:
        return int(row[name])

    dp = n("n_devices") // (n("tp") * n("pp") * n("cp"))
    sizes = {name: n(name) for name in ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_ff", "vocab_size", "seq_len")}
    experts = {name: n(name) for name in ("n_experts", "experts_top_k", "d_ff_expert")}
    flags = {name: row[name] == "true" for name in ("gated", "tied_embedding")}
    plan = ParallelPlan(
        data_parallel_size=dp,
        tensor_parallel_size=n("tp"),
        pipeline_parallel_size=n("pp"),
        n_virtual_stages=n("n_virtual"),
        context_parallel_size=n("cp"),
        expert_parallel_size=n("ep"),
        sharding=Sharding(row["sharding"]),
        recompute=Recompute(row["recompute"]),
    )
    return Setup(
        id=row["id"],
        stack=row["stack"],
        device=row["device"],
        shape=ModelShape(name=row["id"], head_dim=n("d_model") // n("n_heads"), **sizes, **experts, **flags),
        plan=plan,
        batch=BatchPlan(micro_batch_size=n("micro_batch"), global_batch_size=n("global_batch"), data_parallel_size=dp),
        overlaps=row["overlap"] == "on",
    )


def plain(name: str) -> dict[str, Any]:
    """The composed configuration with this cluster."""
    return compose_plain([f"cluster={name}"])


def clusters() -> dict[str, Cluster]:
    """The cluster of each device of the rows."""
    return {device: decode(Cluster, plain(name)["cluster"]) for device, name in CLUSTERS.items()}


def published_prior() -> Prior:
    """The prior of conf/."""
    return decode(Prior, plain("nvidia_eos")["prior"])


def on(cluster: Cluster, setup: Setup) -> Cluster:
    """The cluster at the size of the run."""
    per_node = min(cluster.devices_per_node, setup.plan.world_size)
    return replace(cluster, devices_per_node=per_node, n_nodes=-(-setup.plan.world_size // per_node))


def of(prior: Prior, setup: Setup) -> Prior:
    """The prior for a run that may have had every overlap switched off."""
    if setup.overlaps:
        return prior
    names = ("exposed_data_parallel_fraction", "exposed_tensor_parallel_fraction", "exposed_expert_parallel_fraction")
    return replace(prior, **{name: replace(getattr(prior, name), value=1.0, log_sd=0.0) for name in names})


def tokens_per_s_per_device(prior: Prior, setup: Setup, cluster: Cluster) -> float:
    """What the model predicts at the medians of the prior."""
    draws = medians(of(prior, setup), cluster.device.name)
    seconds = step_s(Job(shape=setup.shape, layout=setup.layout, cluster=on(cluster, setup), draws=draws))
    return setup.batch.global_batch_size * setup.shape.seq_len / float(seconds) / setup.plan.world_size


@dataclass(frozen=True)
class Fit:
    """What the small runs say about the prior."""

    other_work_fraction: float
    expert_kernel_fraction: float
    b200_kernel_factor: float
    stack_log_sd: float


def fit(prior: Prior, rows: Sequence[tuple[Setup, float]], found: dict[str, Cluster]) -> Fit:
    """One parameter after the other, each so that its runs are right in the mean of their stacks' mean log ratios."""
    dense = [row for row in rows if not row[0].shape.is_moe and row[0].device != "b200_sxm"]
    experts = [row for row in rows if row[0].shape.is_moe]
    blackwell = [row for row in rows if row[0].device == "b200_sxm"]

    def solve(change: Callable[[Prior, float], Prior], those: Sequence[tuple[Setup, float]], rising: bool) -> Prior:
        low, high = 1e-3, 10.0
        for _ in range(50):
            middle = sqrt(low * high)
            too_fast = _mean_log_ratio(change(prior, middle), those, found) > 0
            low, high = (low, middle) if too_fast == rising else (middle, high)
        return change(prior, sqrt(low * high))

    prior = solve(_named("other_work_fraction"), dense, rising=False)
    prior = solve(_named("expert_kernel_fraction"), experts, rising=True)
    prior = solve(_blackwell, blackwell, rising=True)
    return Fit(
        other_work_fraction=prior.other_work_fraction.value,
        expert_kernel_fraction=prior.expert_kernel_fraction.value,
        b200_kernel_factor=prior.kernel_factor_by_device["B200-SXM"].value,
        stack_log_sd=_residual_log_sd(prior, rows, found),
    )


def _named(name: str) -> Callable[[Prior, float], Prior]:
    return lambda prior, value: replace(prior, **{name: replace(getattr(prior, name), value=value)})


def _blackwell(prior: Prior, value: float) -> Prior:
    factor: Parameter = prior.kernel_factor_by_device["B200-SXM"]
    return replace(prior, kernel_factor_by_device={**prior.kernel_factor_by_device, "B200-SXM": replace(factor, value=value)})


def _by_stack(prior: Prior, rows: Sequence[tuple[Setup, float]], found: dict[str, Cluster]) -> list[list[float]]:
    """Log of predicted over observed speed, in a list per stack."""
    ratios = defaultdict(list)
    for setup, observed in rows:
        ratios[setup.stack].append(log(tokens_per_s_per_device(prior, setup, found[setup.device]) / observed))
    return list(ratios.values())


def _mean_log_ratio(prior: Prior, rows: Sequence[tuple[Setup, float]], found: dict[str, Cluster]) -> float:
    means = [sum(ratios) / len(ratios) for ratios in _by_stack(prior, rows, found)]
    return sum(means) / len(means)


def _residual_log_sd(prior: Prior, rows: Sequence[tuple[Setup, float]], found: dict[str, Cluster]) -> float:
    """Of stacks with equal weight, three of which the fitted parameters use up."""
    squares = [sum(ratio**2 for ratio in ratios) / len(ratios) for ratios in _by_stack(prior, rows, found)]
    return sqrt(sum(squares) / (len(squares) - N_FITTED))


def percent(log_ratio: float) -> float:
    """The error in percent that a log ratio stands for."""
    return 100 * (exp(abs(log_ratio)) - 1)
