"""Hosts on this machine: links that deliver what was asked for, and nothing that stays behind."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.config.compose import compose, compose_plain
from bench.errors import UsageError
from bench.facts.lab import LabNetwork
from bench.facts.profile import Collective, CollectivePoint, GroupAxis, NetworkProbe
from bench.lab import COMMON, PROBE_BYTES
from bench.run import hosts as laboratory
from bench.run.agents import run_on_hosts
from bench.run.hosts import INTERFACE, hosts, why_no_hosts
from bench.run.wire import NAMESPACES
from bench.store.labs import read_network
from bench.store.results import write_config

pytestmark = pytest.mark.alone

needs_hosts = pytest.mark.skipif(why_no_hosts() is not None, reason=str(why_no_hosts()))


def network(rate_bit_per_s: float, one_way_s: float = 0.0, sick_host: int | None = None) -> LabNetwork:
    """Links of a rate and a delay."""
    lab = compose(["lab=short"]).lab
    assert lab is not None
    fast = lab.networks["fast"]
    out = fast.cluster.scale_out
    figures = replace(out.bytes_per_s, value=rate_bit_per_s / 8), replace(out.latency_s, value=one_way_s)
    link = replace(out, bytes_per_s=figures[0], latency_s=figures[1])
    return replace(fast, cluster=replace(fast.cluster, scale_out=link), sick_host=sick_host)


def probed(network: LabNetwork, n_hosts: int, folder: Path) -> NetworkProbe:
    """What ranks see of the links between so many hosts."""
    write_config(folder, compose_plain(["model=tiny", "plan=ddp", *COMMON]))
    (folder / "log").mkdir()
    run_on_hosts(network, n_hosts, 1, folder, timeout_s=120)
    found = read_network(folder)
    assert found is not None
    return found


def ours() -> list[str]:
    """Namespaces of this process."""
    return [file.name for file in NAMESPACES.glob(f"lab-{os.getpid()}-*")] if NAMESPACES.is_dir() else []


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    assert ours() == []


@needs_hosts
@pytest.mark.parametrize(
    ("rate", "delay"),
    [
        pytest.param(20e6, 0.0, marks=pytest.mark.slow),
        (16e6, 5e-3),
        pytest.param(8e6, 0.0, marks=pytest.mark.slow),
        pytest.param(16e6, 10e-3, marks=pytest.mark.slow),
    ],
)
def test_a_shaped_link_delivers_its_rate(rate: float, delay: float, tmp_path: Path) -> None:
    points = {(p.collective, p.size_bytes): p for p in probed(network(rate, delay), 2, tmp_path).collectives if is_across(p)}
    large = points[Collective.ALL_REDUCE, PROBE_BYTES[-1]].timing.median_s
    # a ring of two: 2 * (2 - 1) messages of half a buffer
    assert large == pytest.approx(PROBE_BYTES[-1] / (rate / 8), rel=0.10)
    if delay:  # two messages, each of which is told to be expected before it is sent
        assert points[Collective.ALL_REDUCE, PROBE_BYTES[0]].timing.median_s >= 2 * 2 * delay


def is_across(point: CollectivePoint) -> bool:
    """Whether a point is of two hosts."""
    return point.axis is GroupAxis.ACROSS_NODES and point.n_ranks == 2


@needs_hosts
@pytest.mark.slow
def test_a_sick_link_is_seen_by_the_probes(tmp_path: Path) -> None:
    rates = [link.bytes_per_s for link in probed(network(20e6, sick_host=2), 4, tmp_path).links]
    assert rates[2] == pytest.approx(0.1 * rates[0], rel=0.2)
    assert [rates[i] for i in (0, 1, 3)] == pytest.approx([2.5e6] * 3, rel=0.1)


@needs_hosts
@pytest.mark.slow
def test_an_uplink_carries_full_frames_at_its_own_rate(tmp_path: Path) -> None:
    lab = compose(["lab=scaling"]).lab
    assert lab is not None
    rates = [link.bytes_per_s for link in probed(lab.networks["oversubscribed"], 3, tmp_path).links]
    # two hosts below one switch reach one another at the rate of their links; the third is beyond an uplink of half of that
    assert rates == pytest.approx([2.5e6, 2.5e6, 1.25e6], rel=0.1)


@needs_hosts
@pytest.mark.skipif(shutil.which("ping") is None, reason="ping is not installed (Debian: apt-get install iputils-ping)")
def test_hosts_reach_one_another_with_the_delay() -> None:
    with hosts(network(20e6, 10e-3), 2) as (first, second):
        ping = subprocess.run(first.command(["ping", "-c", "3", "-q", second.address]), capture_output=True, text=True, check=True)
    assert 20 <= float(ping.stdout.rsplit("=", 1)[1].split("/")[1]) < 40  # ms, there and back


@needs_hosts
def test_hosts_are_gone_whatever_happens() -> None:
    with pytest.raises(ZeroDivisionError), hosts(network(20e6, 10e-3), 2):
        raise ZeroDivisionError(ours())


@needs_hosts
def test_what_a_killed_laboratory_left_is_cleared_by_the_next() -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = f"lab-{dead.pid}-0"
    subprocess.run(["ip", "netns", "add", left], check=True)
    with hosts(network(20e6), 2) as here:
        assert (NAMESPACES / here[0].namespace).exists()
        assert INTERFACE in subprocess.run(["ip", "-n", here[0].namespace, "link"], capture_output=True, text=True, check=True).stdout
    assert not (NAMESPACES / left).exists()


def test_without_root_it_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laboratory.os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="lab: root is needed"), hosts(network(20e6), 2):
        pass


def test_links_faster_than_this_machine_carries_are_refused() -> None:
    with pytest.raises(UsageError, match=r"networks\.fast: its hosts send 4e\+07 bytes/s"):
        compose(["lab=short", "lab.most_bytes_per_s.value=1e6", "lab.networks.fast.cluster.scale_out.bytes_per_s.value=1e7"])
