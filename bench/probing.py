"""Probe and slice as one rank does them: which plan is meant, what it runs on a device, and who measures what."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from bench.config.schema import Config, SliceRequest
from bench.cost.layout import batch_of, plan_of
from bench.cost.posterior import condition
from bench.cost.search import best_plan
from bench.cost.shard import shard_ends_flops, shard_layer_flops, shard_products, slice_bytes
from bench.errors import DoesNotFit, UsageError
from bench.facts.hardware import Backend, Cluster, Precision
from bench.facts.plan import ParallelPlan
from bench.facts.profile import PROFILE_VERSION, SICK_LIMIT, DeviceProfile, NetworkProbe, NodeLink, SliceMeasurement, SliceSpec
from bench.facts.progress import Progress, unheard
from bench.facts.shard import local_shape
from bench.report.terminal import ProgressLine
from bench.run.collectives import communication_library, leave_world, nodes_of_ranks, probe_collectives, probe_links
from bench.run.devices import LocalDevice, find_backend, n_cores
from bench.run.environment import capture_environment
from bench.run.launch import RankPlace, join_world
from bench.run.probe import probe_device, probe_precisions
from bench.run.probe_cases import PlanWork
from bench.run.slice import measure_slice, slice_precision

T = TypeVar("T")


def probe(config: Config, place: RankPlace, progress: ProgressLine | None) -> DeviceProfile | None:
    """The profile on rank 0, None on the others, which are needed for the collectives and then leave."""
    tell = progress or unheard
    backend, threads = find_backend(_given(config.device.backend)), _threads(config, place.local_world_size)
    device = _joined(config, place, backend, threads)
    environment, network = capture_environment(device, place.world_size), probe_network(config, device, place, tell)
    library = communication_library()
    leave_world()
    if place.rank > 0:
        return None
    plans, warnings = plan_work(config)
    precisions = probe_precisions(device, _given(config.train.precision))
    probes, left_out, loads = probe_device(config.probe, device, plans, precisions, tell)
    if progress:
        progress.close()
    wrong = (f"{p.collective} of {p.size_bytes} bytes brought wrong numbers" for p in network.collectives if not p.correct)
    return DeviceProfile(
        profile_version=PROFILE_VERSION,
        device_name=device.name(),
        backend=backend,
        world_size=place.world_size,
        n_nodes=network.n_nodes,
        threads_per_rank=threads,
        communication=library,
        date=datetime.now(UTC).date().isoformat(),
        environment=environment,
        target=config.target.name,
        probes=probes,
        collectives=network.collectives,
        absent=(*network.absent, *left_out),
        warnings=(*warnings, *wrong, *sick_links(network.links)),
        links=network.links,
        loads=loads,
    )


def probe_lab(config: Config, place: RankPlace) -> NetworkProbe:
    """What two hosts exchange, or the link of each of more, the same on every rank; the ranks stay together."""
    device = _joined(config, place, Backend.CPU, _threads(config, place.local_world_size))
    nodes = nodes_of_ranks(place)
    if len(set(nodes)) == 2:
        return probe_network(config, device, place, unheard)
    return NetworkProbe(n_nodes=len(set(nodes)), collectives=(), absent=(), links=probe_links(config.probe, device, nodes))


def probe_network(config: Config, device: LocalDevice, place: RankPlace, tell: Progress) -> NetworkProbe:
    """Collectives over every kind of group and the link of every node, the same on every rank."""
    nodes = nodes_of_ranks(place)
    points, lacking = probe_collectives(config.probe, device, nodes, tell)
    return NetworkProbe(n_nodes=len(set(nodes)), collectives=points, absent=lacking, links=probe_links(config.probe, device, nodes))


def _joined(config: Config, place: RankPlace, backend: Backend, threads: int) -> LocalDevice:
    join_world(place, backend is Backend.CPU, threads, config.measure.collective_timeout_s)
    return LocalDevice(backend, place.local_rank)


def sick_links(links: Sequence[NodeLink]) -> tuple[str, ...]:
    """A sentence for every node whose link is far below the median one: a ring is as slow as its slowest link."""
    typical = statistics.median([link.bytes_per_s for link in links]) if links else 0.0
    return tuple(
        f"the link of node {link.node} carries {link.bytes_per_s / typical:.2f} of what the median node's does; collectives wait for it"
        for link in links
        if link.bytes_per_s < SICK_LIMIT * typical
    )


def time_slice(config: Config, place: RankPlace, progress: ProgressLine | None) -> SliceMeasurement:
    """The timed share of one device. Raises DoesNotFit before anything is allocated."""
    backend, threads = find_backend(_given(config.device.backend)), _threads(config, 1)
    join_world(RankPlace(rank=0, local_rank=place.local_rank, world_size=1, local_world_size=1), backend is Backend.CPU, threads)
    device = LocalDevice(backend, place.local_rank)
    spec = slice_spec(config, slice_precision(backend, _given(config.train.precision)))
    measured = measure_slice(spec, device, threads, capture_environment(device, 1), progress or unheard)
    if progress:
        progress.close()
    return measured


def _threads(config: Config, n_ranks: int) -> int:
    asked = config.device.threads_per_rank
    return max(1, n_cores() // n_ranks) if asked == "auto" else asked


def _given(value: T | Literal["auto"]) -> T | None:
    return None if value == "auto" else value


def plan_work(config: Config) -> tuple[tuple[PlanWork, ...], tuple[str, ...]]:
    """What one device does in the plan of every cluster, and a sentence for every cluster without a plan."""
    done, warnings = [], []
    for cluster in config.clusters:
        try:
            plan, micro_batch_size = big_plan(config, cluster)
            done.append(
                PlanWork(
                    name=cluster.name,
                    products=shard_products(config.target.model, plan, micro_batch_size),
                    local=local_shape(config.target.model, plan),
                    micro_batch_size=micro_batch_size,
                )
            )
        except (DoesNotFit, UsageError) as error:
            warnings.append(f"no products of a plan for {cluster.name}: {error}")
    return tuple(done), tuple(warnings)


def slice_spec(config: Config, precision: Precision) -> SliceSpec:
    """The share to be timed. Raises UsageError where it is open whose plan is meant, or the plan does not divide the model."""
    searched = _is_open(config.slice)
    if searched and len(config.clusters) > 1:
        names = ", ".join(cluster.name for cluster in config.clusters)
        raise UsageError(f"slice: the plan is open and {len(config.clusters)} clusters are given ({names}); choose one: cluster=NAME")
    shape, (plan, micro_batch_size) = config.target.model, big_plan(config, config.clusters[0])
    return SliceSpec(
        target=config.target.name,
        cluster=config.clusters[0].name if searched else "",
        model=shape,
        plan=plan,
        micro_batch_size=micro_batch_size,
        n_layers=config.slice.n_layers,
        precision=precision,
        seed=config.train.seed,
        repeat=config.slice.repeat,
        layer_flops=shard_layer_flops(shape, plan, micro_batch_size),
        ends_flops=shard_ends_flops(shape, plan, micro_batch_size),
        needed_bytes=slice_bytes(shape, plan, micro_batch_size, config.slice.n_layers, precision),
    )


def big_plan(config: Config, cluster: Cluster) -> tuple[ParallelPlan, int]:
    """The full-size plan and its micro-batch: as searched for the cluster, but for what `slice` gives."""
    asked = config.slice
    if not _is_open(asked):
        return _given_plan(asked)
    layout = best_plan(config.target, cluster, config.stack, condition(config.prior, None))
    plan, micro = plan_of(layout), batch_of(layout).micro_batch_size
    sizes = _sizes(asked)
    ep, dp = sizes.get("expert_parallel_size", plan.expert_parallel_size), plan.data_parallel_size
    changed = replace(plan, **sizes, data_parallel_size=max(ep, dp // ep * ep), recompute=_given(asked.recompute) or plan.recompute)
    return changed, _given(asked.micro_batch_size) or micro


def _given_plan(asked: SliceRequest) -> tuple[ParallelPlan, int]:
    sizes = _sizes(asked)
    recompute, micro = _given(asked.recompute), _given(asked.micro_batch_size)
    assert recompute is not None
    assert micro is not None
    return ParallelPlan(**sizes, data_parallel_size=sizes["expert_parallel_size"], recompute=recompute), micro


def _sizes(asked: SliceRequest) -> dict[str, Any]:
    """The sizes that are given."""
    names = ("tensor_parallel_size", "expert_parallel_size", "context_parallel_size")
    return {name: size for name in names if (size := getattr(asked, name)) != "auto"}


def _is_open(asked: SliceRequest) -> bool:
    return len(_sizes(asked)) < 3 or "auto" in (asked.recompute, asked.micro_batch_size)
