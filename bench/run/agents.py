"""torchrun on every host of a laboratory, as an engine would start it on every machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from bench.errors import WorkerError
from bench.facts.lab import LabNetwork
from bench.run.hosts import INTERFACE, Host, hosts
from bench.run.launch import rank_variables

PORT = 29500  # hosts have all ports to themselves
HERE = (Host("", "127.0.0.1"),)


def run_on_hosts(network: LabNetwork | None, n_hosts: int, ranks_per_host: int, folder: Path, timeout_s: float) -> None:
    """Nothing; ranks on so many hosts have done what lies in the folder. Without a network the one host is this machine.

    Raises WorkerError where a host ends with another exit code than 0, or too late.
    """
    made = hosts(network, n_hosts) if network else nullcontext(HERE)
    with made as here, _agents(folder, here, ranks_per_host) as agents:
        _wait(agents, folder, timeout_s)


def _wait(agents: Sequence[subprocess.Popen[bytes]], folder: Path, timeout_s: float) -> None:
    until, log = time.monotonic() + timeout_s, folder / "log"
    while any(agent.poll() is None for agent in agents) and not any(agent.poll() for agent in agents):
        if time.monotonic() > until:
            raise WorkerError(f"lab: {folder.name} was not done within lab.timeout_s {timeout_s:g}; see {log}")
        time.sleep(0.1)
    if failed := [i for i, agent in enumerate(agents) if agent.poll()]:
        raise WorkerError(f"lab: host {failed[0]} of {folder.name} has failed; see {log}")


@contextmanager
def _agents(folder: Path, here: Sequence[Host], ranks_per_host: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """torchrun on every host; all of them and their ranks are gone afterwards."""
    variables, port = os.environ | rank_variables(threads_per_rank=1), PORT if here is not HERE else _free_port()
    if here is not HERE:
        variables["GLOO_SOCKET_IFNAME"] = INTERFACE
    agents = []
    try:
        for i, host in enumerate(here):
            with (folder / "log" / f"host{i}.log").open("wb") as log:
                command = host.command(_command(folder, here, i, ranks_per_host, port))
                agents.append(subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True))
        yield agents
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for agent in agents:
                _end(agent, number)


def _end(agent: subprocess.Popen[bytes], number: int) -> None:
    """Nothing; the agent and its ranks have had the signal, and have ended or had some seconds to."""
    try:
        os.killpg(agent.pid, number)
        agent.wait(timeout=5)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass


def _command(folder: Path, here: Sequence[Host], i: int, ranks_per_host: int, port: int) -> list[str]:
    where = [f"--nnodes={len(here)}", f"--node-rank={i}", f"--master-addr={here[0].address}", f"--master-port={port}"]
    agent = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks_per_host}", *where]
    return [*agent, "-m", "bench", "worker", str(folder.resolve()), "lab"]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
