"""Several machines as one run: which of them this is, where the first one listens, and on which interface only."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil
from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed.elastic.rendezvous import RendezvousInfo, RendezvousParameters, rendezvous_handler_registry
from torch.distributed.elastic.rendezvous.api import RendezvousStoreInfo
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from bench.errors import Preempted, UsageError, WorkerError
from bench.facts.engine import LaunchRequest

PORT = 29500
SLURM_PORTS = range(20000, 30000)  # by the job's number, so that two jobs on one node do not meet
BACKEND = "bench-static"


@dataclass(frozen=True)
class NodePlace:
    """Where this machine stands among those of the run."""

    n_nodes: int
    node_rank: int
    head: str  # address of the first node
    port: int
    attempt: str  # the same on all nodes of one attempt, and no other's
    interface: str | None = None
    join_timeout_s: float = 300


def find_node(environment: Mapping[str, str], asked: LaunchRequest) -> NodePlace | None:
    """The place of this node, or None where there is one node only.

    What is asked for goes first; then SkyPilot's variables, a Kubernetes Indexed Job's with BENCH_N_NODES, and a Slurm step
    with one task on each of several nodes. BENCH_MASTER_ADDR names the first node where its name does not resolve.
    """
    e = environment
    if asked.n_nodes is not None:
        found = (asked.n_nodes, asked.node_rank or 0, asked.master_addr or "", PORT, "asked")
    elif "SKYPILOT_NODE_RANK" in e:
        first = (e.get("SKYPILOT_NODE_IPS", "").split() or [""])[0]
        found = (_number(e, "SKYPILOT_NUM_NODES"), _number(e, "SKYPILOT_NODE_RANK"), first, PORT, e.get("SKYPILOT_TASK_ID", "sky"))
    elif "JOB_COMPLETION_INDEX" in e and "BENCH_N_NODES" in e:
        found = (_number(e, "BENCH_N_NODES"), _number(e, "JOB_COMPLETION_INDEX"), "", PORT, "indexed-job")
    elif is_node_step(e):
        job = _number(e, "SLURM_JOB_ID")
        attempt = f"slurm-{job}.{e.get('SLURM_RESTART_COUNT') or '0'}.{e['SLURM_STEP_ID']}"
        found = (_number(e, "SLURM_STEP_NUM_NODES"), _number(e, "SLURM_PROCID"), "", SLURM_PORTS[job % len(SLURM_PORTS)], attempt)
    else:
        return None
    return _place(found, environment, asked)


def is_node_step(environment: Mapping[str, str]) -> bool:
    """Whether Slurm has started one task on each of several nodes, each of which then starts its own ranks."""
    step, n_tasks, n_nodes = (environment.get(f"SLURM_STEP_{name}", "") for name in ("ID", "NUM_TASKS", "NUM_NODES"))
    return step.isdigit() and n_tasks.isdigit() and n_tasks == n_nodes and int(n_tasks) > 1


def _place(found: tuple[int, int, str, int, str], environment: Mapping[str, str], asked: LaunchRequest) -> NodePlace | None:
    n_nodes, rank, head, port, attempt = found
    if n_nodes == 1:
        return None
    if not 0 <= rank < n_nodes:
        raise UsageError(f"launch.node_rank: {rank} given for {n_nodes} nodes; ranks are 0 to {n_nodes - 1}")
    head = asked.master_addr or environment.get("BENCH_MASTER_ADDR") or head or _first_of_slurm(environment)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", head):
        raise UsageError(f"launch.master_addr: {head!r} is no name or address of a machine; set it, or BENCH_MASTER_ADDR")
    if asked.interface:
        address_of(asked.interface)
    return NodePlace(n_nodes, rank, head, asked.master_port or port, attempt, asked.interface, asked.join_timeout_s)


def address_of(interface: str) -> str:
    """The IPv4 address of a network interface of this machine. Raises UsageError where it has none."""
    known = {
        name: a.address for name, addresses in psutil.net_if_addrs().items() for a in reversed(addresses) if a.family is socket.AF_INET
    }
    if interface not in known:
        raise UsageError(f"launch.interface: no interface '{interface}' with an IPv4 address here (there are: {', '.join(known)})")
    return known[interface]


def wait_for_head(node: NodePlace) -> None:
    """Nothing, as soon as the first node listens. Raises WorkerError where it does not in time, or this process is asked to stop.

    Connecting inside torch would be deaf to signals. The exit code is 1: the first node's, which tells the cause, is the higher one.
    """
    until = time.monotonic() + node.join_timeout_s
    who = f"launch: node {node.node_rank} of {node.n_nodes}"
    try:
        while time.monotonic() < until:
            try:
                socket.create_connection((node.head, node.port), timeout=2).close()
                return
            except OSError:
                time.sleep(0.2)
    except Preempted as error:
        raise WorkerError(f"{who} was asked to stop before node 0 listened on {node.head}:{node.port} ({error})") from None
    raise WorkerError(f"{who}: nobody listens on {node.head}:{node.port} within {node.join_timeout_s:g} s; see what node 0 says")


def rendezvous(node: NodePlace | None) -> dict[str, Any]:
    """Fields of torch's LaunchConfig by which agents meet: on loopback alone for one node, on the head's one address for several."""
    place = node or NodePlace(n_nodes=1, node_rank=0, head="127.0.0.1", port=0, attempt=f"bench-{os.getpid()}")
    rendezvous_handler_registry.register(BACKEND, _meeting)
    return {
        "min_nodes": place.n_nodes,
        "max_nodes": place.n_nodes,
        "run_id": place.attempt,
        "rdzv_backend": BACKEND,
        "rdzv_endpoint": f"{place.head}:{place.port}",
        "rdzv_configs": {"place": place, "timeout": place.join_timeout_s},
        "local_addr": address_of(place.interface) if place.interface else None,
    }


def interface_variables(node: NodePlace | None) -> dict[str, str]:
    """Variables that keep collectives on the interface asked for; none where none is."""
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
    return dict.fromkeys(names, node.interface) if node and node.interface else {}


class _Meeting(StaticTCPRendezvous):
    """Torch's static rendezvous, listening on one address instead of all of the machine's."""

    def __init__(self, place: NodePlace) -> None:
        self.place = place
        super().__init__(place.head, place.port, place.node_rank, place.n_nodes, place.attempt, int(place.join_timeout_s))

    def get_backend(self) -> str:
        """The name under which torch asks for it."""
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        """The store that all agents share. Raises UsageError for a port in use, WorkerError where nodes do not come."""
        if not self._store:
            self._store = self._listen() if self.rank == 0 else self._join()
        store = PrefixStore(self.run_id, self._store)
        return RendezvousInfo(store, self.rank, self.world_size, RendezvousStoreInfo(self.master_addr, self.master_port))

    def _listen(self) -> TCPStore:
        address = address_of(self.place.interface) if self.place.interface else _own_address(self.place.head)
        try:
            listener = socket.create_server((address, self.place.port))
        except OSError as error:
            raise UsageError(f"launch.master_port: {self.place.port} cannot be opened on {address} ({error.strerror})") from None
        self.master_port = listener.getsockname()[1]
        try:
            return TCPStore(
                address, self.master_port, self.world_size, True, self.timeout, multi_tenant=False, master_listen_fd=listener.detach()
            )
        except RuntimeError as error:
            raise WorkerError(f"launch: {self._who()} waited {self.timeout} for the other nodes: {_first_line(error)}") from None

    def _join(self) -> TCPStore:
        try:
            return TCPStore(self.master_addr, self.master_port, self.world_size, False, self.timeout)
        except RuntimeError as error:
            raise WorkerError(f"launch: {self._who()} waited {self.timeout} for {self.place.head}: {_first_line(error)}") from None

    def _who(self) -> str:
        return f"node {self.rank} of {self.world_size}"


def _meeting(parameters: RendezvousParameters) -> _Meeting:
    return _Meeting(parameters.config["place"])


def _own_address(head: str) -> str:
    """The address of this machine that its name among the nodes stands for; all of them where that is another's (behind NAT)."""
    try:
        found = socket.gethostbyname(head)
    except OSError:
        raise UsageError(f"launch.master_addr: '{head}' does not resolve here; give an address, or BENCH_MASTER_ADDR") from None
    own = {a.address for addresses in psutil.net_if_addrs().values() for a in addresses}
    return found if found in own else "0.0.0.0"


def _first_of_slurm(environment: Mapping[str, str]) -> str:
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    if not nodes:
        return ""
    try:
        told = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (told.stdout.split() or [""])[0]


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdigit():
        raise UsageError(f"{name}: {text!r} is no number; the engine sets it, or launch.n_nodes and launch.node_rank say it")
    return int(text)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
