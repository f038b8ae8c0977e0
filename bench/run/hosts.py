"""Hosts on this machine: network namespaces joined by links whose rate the kernel shapes, and whose delay a wire of ours adds.

host 0 --- wire or veth --- leaf switch --- uplink --- spine switch
           tbf at both ends             tbf at both ends
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError, WorkerError
from bench.facts.lab import LabNetwork
from bench.run.wire import NAMESPACES, READY

INTERFACE = "eth0"
MTU = 9000
HEADER_SHARE = 9014 / 8948  # Ethernet, IP and TCP headers with time stamps, over the payload of a full frame
BURST_BYTES = 10240  # one full frame: what a link that was idle may send at once, and is not charged for
LONGEST_QUEUE_S = 2.0  # nothing is dropped: TCP's recovery would be measured with the link
PREFIX = "lab"


@dataclass(frozen=True)
class Host:
    """A namespace with one interface."""

    namespace: str
    address: str

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line that runs another on this host; without a namespace, on this machine itself."""
        return [*arguments] if not self.namespace else ["nsenter", f"--net={NAMESPACES / self.namespace}", *arguments]


def why_no_hosts() -> str | None:
    """Why this machine cannot have hosts; None where it can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "root is needed for network namespaces"
    if missing := [tool for tool in ("ip", "tc", "nsenter") if shutil.which(tool) is None]:
        return f"{', '.join(missing)} not installed (Debian: apt-get install iproute2 util-linux)"
    probe = f"{PREFIX}-{os.getpid()}-probe"
    tried = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"namespaces cannot be made here ({tried.stderr.strip()})"
    _run("ip", "netns", "del", probe)
    return None if Path("/dev/net/tun").exists() else "/dev/net/tun is not there"


@contextmanager
def hosts(network: LabNetwork, n_hosts: int) -> Iterator[tuple[Host, ...]]:
    """So many hosts, joined; gone afterwards, whatever happens. Raises UsageError where this machine cannot have any."""
    if why := why_no_hosts():
        raise UsageError(f"lab: {why}")
    _clear_abandoned()
    name = f"{PREFIX}-{os.getpid()}"
    here = tuple(Host(f"{name}-{i}", f"10.77.{i // 200}.{i % 200 + 10}") for i in range(n_hosts))
    switch = f"{name}-switch"
    with ExitStack() as stack:
        for namespace in (switch, *(host.namespace for host in here)):
            _run("ip", "netns", "add", namespace)
            stack.callback(_run, "ip", "netns", "del", namespace)
            _ip(namespace, "link", "set", "lo", "up")
        leaves = _make_switches(switch, network, n_hosts)
        if network.one_way_s > 0:
            stack.enter_context(_wires(network, here, switch))
        for i, host in enumerate(here):
            _join(network, i, host, switch, leaves[i])
        yield here


def _make_switches(switch: str, network: LabNetwork, n_hosts: int) -> list[str]:
    """The bridge of every host."""
    if network.uplink_bytes_per_s is None:
        _add_bridge(switch, "leaf0")
        return ["leaf0"] * n_hosts
    _add_bridge(switch, "spine")
    leaf_of = [f"leaf{i // network.hosts_per_leaf}" for i in range(n_hosts)]
    for i, leaf in enumerate(dict.fromkeys(leaf_of)):
        _add_bridge(switch, leaf)
        _ip(switch, "link", "add", f"up{i}", "type", "veth", "peer", "name", f"down{i}")
        for port, bridge in ((f"up{i}", leaf), (f"down{i}", "spine")):
            _ip(switch, "link", "set", port, "master", bridge, "mtu", str(MTU), "up")
            _shape(switch, port, network.uplink_bytes_per_s)
    return leaf_of


def _add_bridge(switch: str, name: str) -> None:
    _ip(switch, "link", "add", name, "type", "bridge")
    _ip(switch, "link", "set", name, "up")


def _join(network: LabNetwork, i: int, host: Host, switch: str, leaf: str) -> None:
    port = f"port{i}"
    if network.one_way_s == 0:
        _ip(host.namespace, "link", "add", INTERFACE, "type", "veth", "peer", "name", port, "netns", switch)
    _ip(switch, "link", "set", port, "master", leaf, "mtu", str(MTU), "up")
    _ip(host.namespace, "addr", "add", f"{host.address}/16", "dev", INTERFACE)
    _ip(host.namespace, "link", "set", INTERFACE, "mtu", str(MTU), "up")
    for namespace, interface in ((host.namespace, INTERFACE), (switch, port)):
        _shape(namespace, interface, network.bytes_per_s(i))


def _shape(namespace: str, interface: str, payload_bytes_per_s: float) -> None:
    """Nothing; what leaves through an interface has a rate. Source: tc-tbf(8)."""
    rate = f"{payload_bytes_per_s * HEADER_SHARE * 8:.0f}bit"
    limit = ["burst", str(BURST_BYTES), "latency", f"{LONGEST_QUEUE_S * 1e3:.0f}ms"]
    _run("tc", "-n", namespace, "qdisc", "add", "dev", interface, "root", "tbf", "rate", rate, *limit)


@contextmanager
def _wires(network: LabNetwork, here: Sequence[Host], switch: str) -> Iterator[None]:
    """Interfaces of hosts and ports of the switch with a delay between them, half of the way on each wire."""
    wires = [((host.namespace, INTERFACE), (switch, f"port{i}")) for i, host in enumerate(here)]
    given = json.dumps([wires, network.one_way_s / 2, network.jitter_s / 2])
    with subprocess.Popen([sys.executable, "-m", "bench.run.wire", given], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != READY:
                raise WorkerError("lab: the wires did not come up; see the lines above")
            yield
        finally:
            process.terminate()


def _clear_abandoned() -> None:
    """Nothing; namespaces of a laboratory whose process was killed are gone."""
    for file in NAMESPACES.glob(f"{PREFIX}-*") if NAMESPACES.is_dir() else ():
        found = re.fullmatch(rf"{PREFIX}-(\d+)-\w+", file.name)
        if found and not _is_alive(int(found[1])):
            for process in _run("ip", "netns", "pids", file.name).split():
                os.kill(int(process), signal.SIGKILL)
            _run("ip", "netns", "del", file.name)


def _is_alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def _ip(namespace: str, *arguments: str) -> None:
    _run("ip", "-n", namespace, *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkerError(f"lab: {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
