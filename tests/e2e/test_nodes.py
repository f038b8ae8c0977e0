"""Two node agents on one machine, as an engine would start one on each of two."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.store.results import read_result
from tests.conftest import SMALL, run_bench

QUICK = (*SMALL, "measure.steps=10", "measure.breakdown_steps=0", "device.n_devices=1", "launch.interface=lo")


@pytest.mark.slow
def test_two_nodes_measure_as_one_and_the_first_keeps_the_result(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = ("launch.n_nodes=2", "launch.master_addr=127.0.0.1", f"launch.master_port={port}")
    command = [sys.executable, "-m", "bench", "run", *QUICK, *place, "launch.node_rank=1", "out=second"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second:
        first = run_bench("run", *QUICK, *place, "launch.node_rank=0", "out=first", cwd=tmp_path)
        out, err = second.communicate(timeout=60)
    assert first.returncode == 0, first.stderr
    assert second.returncode == 0, err
    assert out == ""
    result = read_result(tmp_path / "first")
    assert (result.measurement.world_size, len(result.measurement.ranks)) == (2, 2)
    assert (tmp_path / "second" / "log" / "node1" / "log" / "rank1.log").exists()
    assert not (tmp_path / "second" / "result.json").exists()


@pytest.mark.parametrize(
    ("more", "why"),
    [(("measure.launches=2",), "measure.launches: 2 given on 2 nodes"), ((), "nobody listens on 127.0.0.1:9000 within 0.5 s")],
)
def test_what_cannot_be_done_on_several_nodes_is_told_in_one_line(tmp_path: Path, more: tuple[str, ...], why: str) -> None:
    place = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "127.0.0.1 127.0.0.2"}
    done = run_bench(
        "run",
        *QUICK,
        *more,
        "launch.join_timeout_s=0.5",
        "launch.master_port=9000",
        cwd=tmp_path,
        env=place | {"BENCH_MASTER_ADDR": "127.0.0.1"},
    )
    assert done.returncode == (2 if more else 1)
    assert why in done.stderr
    assert done.stderr.splitlines()[-1].startswith("bench: ")
