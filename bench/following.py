"""The other nodes of a run: they start their ranks, and the first node keeps the result."""

import os
from collections.abc import Sequence
from pathlib import Path

from bench.config.compose import compose_plain, load
from bench.config.resolve import check_early
from bench.config.schema import Config
from bench.errors import Preempted, UsageError
from bench.jobs import raise_failure
from bench.report.terminal import tell
from bench.run.devices import find_backend, find_world_size, n_cores
from bench.run.launch import find_place, launch_ranks
from bench.run.nodes import NodePlace, find_node, wait_for_head
from bench.store.failures import forget_failures
from bench.store.results import RESULT, open_run_dir, write_config


def follow(task: str, *overrides: str) -> bool:
    """Whether this is one of the other nodes, whose ranks have then done their part of the task; False on the first and where there is one.

    Logs and configuration lie in `out`/log/nodeN, which may be on a disk of this node alone. Where `out` is shared and holds the
    result already, nothing is left to do. Raises as `api.run` does.
    """
    plain = compose_plain(overrides)
    config = load(plain)
    node = find_node(os.environ, config.launch) if find_place(os.environ) is None else None
    if node is None:
        return False
    if config.measure.launches > 1:
        n = config.measure.launches
        raise UsageError(f"measure.launches: {n} given on {node.n_nodes} nodes; the engine must start them {n} times; use 1")
    if node.node_rank == 0:
        return False
    if config.out and (Path(config.out) / RESULT).exists():
        tell(f"node {node.node_rank}: {config.out} holds a {RESULT} already; nothing left to do")
        return True
    folder = open_run_dir(f"{config.out or f'runs/{config.name}'}/log/node{node.node_rank}", config.name)
    write_config(folder, plain)
    forget_failures(folder)
    _launch(task, config, node, folder)
    return True


def stay_alone(verb: str, overrides: Sequence[str]) -> None:
    """Nothing; raises UsageError where an engine has started this verb on several nodes, each of which would do the whole of it."""
    node = find_node(os.environ, load(compose_plain(overrides)).launch)
    if node and find_place(os.environ) is None:
        raise UsageError(f"{verb}: started on {node.n_nodes} nodes; it runs on one: start `bench run` for each point, or use one node")


def _launch(task: str, config: Config, node: NodePlace, folder: Path) -> None:
    backend = find_backend(None if config.device.backend == "auto" else config.device.backend)
    n_local = find_world_size(backend, None if config.device.n_devices == "auto" else config.device.n_devices)
    check_early(config, n_local * node.n_nodes)
    threads = max(1, n_cores() // n_local) if config.device.threads_per_rank == "auto" else config.device.threads_per_rank
    tell(f"node {node.node_rank} of {node.n_nodes}: {n_local} ranks, joining {node.head}:{node.port}")
    wait_for_head(node)
    ended = launch_ranks(["worker", str(folder), task], n_local, threads, config.measure.grace_s, node=node)
    try:
        raise_failure(ended, folder, n_local * node.n_nodes)
    except Preempted:
        raise Preempted(f"node {node.node_rank} was asked to stop; node 0 keeps what was measured, and the same command goes on") from None
