"""Which node of how many this is, read from the engines' variables; and that meeting opens one address only."""

import socket

import psutil
import pytest

from bench.errors import InvalidFact, Preempted, UsageError, WorkerError
from bench.facts.engine import LaunchRequest
from bench.run import nodes
from bench.run.launch import find_place
from bench.run.nodes import NodePlace, find_node, interface_variables, is_node_step, rendezvous, wait_for_head

EMPTY = {"n_nodes": None, "node_rank": None, "master_addr": None, "master_port": None, "interface": None, "join_timeout_s": 300.0}
AUTO = LaunchRequest(**EMPTY)  # type: ignore[arg-type]
SKY = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_TASK_ID": "sky-7"}
INDEXED = {"JOB_COMPLETION_INDEX": "1", "BENCH_N_NODES": "2", "BENCH_MASTER_ADDR": "bench-0.bench"}
STEP = {
    "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_JOB_ID": "12345", "SLURM_RESTART_COUNT": "3", "BENCH_MASTER_ADDR": "10.0.0.9",
}  # fmt: skip


def asked(**given: object) -> LaunchRequest:
    return LaunchRequest(**EMPTY | given)  # type: ignore[arg-type]


def test_each_engine_says_which_node_this_is() -> None:
    assert find_node({}, AUTO) is None
    assert find_node(SKY, AUTO) == NodePlace(2, 1, "10.0.0.1", 29500, "sky-7")
    assert find_node(INDEXED, AUTO) == NodePlace(2, 1, "bench-0.bench", 29500, "indexed-job")
    # 20000 + 12345 mod 10000 = 22345; restart 3 of the job is another attempt than restart 2
    assert find_node(STEP, AUTO) == NodePlace(2, 1, "10.0.0.9", 22345, "slurm-12345.3.0")
    assert find_node(STEP | {"SLURM_RESTART_COUNT": ""}, AUTO) == NodePlace(2, 1, "10.0.0.9", 22345, "slurm-12345.0.0")


def test_what_is_asked_for_goes_first() -> None:
    place = find_node(SKY, asked(n_nodes=3, node_rank=2, master_addr="head", master_port=4000))
    assert place == NodePlace(3, 2, "head", 4000, "asked")
    assert find_node(SKY, asked(n_nodes=1)) is None


def test_one_task_per_node_starts_ranks_and_several_are_ranks() -> None:
    assert is_node_step(STEP)
    assert find_place(STEP) is None
    several = STEP | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}
    assert not is_node_step(several)
    assert find_place(several) is not None
    assert find_node(several, AUTO) is None
    # the batch script's own shell has job variables and no step
    assert find_node({name: value for name, value in STEP.items() if name != "SLURM_STEP_ID"}, AUTO) is None


@pytest.mark.parametrize(
    ("environment", "request_", "why"),
    [
        (SKY | {"SKYPILOT_NODE_RANK": "2"}, AUTO, "launch.node_rank: 2 given for 2 nodes"),
        (SKY | {"SKYPILOT_NUM_NODES": "two"}, AUTO, "SKYPILOT_NUM_NODES: 'two' is no number"),
        (SKY | {"SKYPILOT_NODE_IPS": ""}, AUTO, "launch.master_addr: ''"),
        (INDEXED | {"BENCH_MASTER_ADDR": "$(reboot)"}, AUTO, "is no name or address"),
        (SKY, asked(interface="eth99"), "launch.interface: no interface 'eth99'"),
    ],
)
def test_a_place_that_cannot_be_is_told_in_one_line(environment: dict[str, str], request_: LaunchRequest, why: str) -> None:
    with pytest.raises(UsageError, match=r"\A[^\n]+\Z") as told:
        find_node(environment, request_)
    assert why in str(told.value)


@pytest.mark.parametrize(
    "given", [{"n_nodes": 0}, {"n_nodes": 2}, {"node_rank": 0}, {"n_nodes": 2, "node_rank": 2, "master_addr": "h"}, {"master_port": 80}]
)
def test_half_a_place_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(InvalidFact):
        asked(**given)


def test_collectives_are_kept_on_the_interface_asked_for() -> None:
    place = NodePlace(2, 0, "127.0.0.1", 0, "a", interface="lo")
    assert interface_variables(place)["GLOO_SOCKET_IFNAME"] == interface_variables(place)["NCCL_SOCKET_IFNAME"] == "lo"
    assert interface_variables(None) == {}
    assert rendezvous(place)["local_addr"] == "127.0.0.1"


def test_one_node_meets_on_loopback_alone() -> None:
    meeting = nodes._Meeting(rendezvous(None)["rdzv_configs"]["place"])
    before = {c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN}
    info = meeting.next_rendezvous()
    opened = {c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN} - before
    assert [address.ip for address in opened] == ["127.0.0.1"]
    info.store.set("met", "yes")
    assert info.store.get("met") == b"yes"
    assert (info.rank, info.world_size) == (0, 1)


def test_a_port_in_use_is_told_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = NodePlace(2, 0, "127.0.0.1", taken.getsockname()[1], "a", interface="lo")
        with pytest.raises(UsageError, match=r"launch.master_port: \d+ cannot be opened on 127.0.0.1"):
            nodes._Meeting(place).next_rendezvous()


def test_a_head_that_never_comes_is_given_up_in_time() -> None:
    with pytest.raises(WorkerError, match=r"node 1 of 2: nobody listens on 127\.0\.0\.1:9 within 0\.3 s"):
        wait_for_head(NodePlace(2, 1, "127.0.0.1", 9, "a", join_timeout_s=0.3))


def test_a_node_that_is_stopped_before_it_joined_leaves_the_cause_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: float) -> None:
        raise Preempted("asked to stop by SIGTERM")

    monkeypatch.setattr(nodes.time, "sleep", stopped)
    with pytest.raises(WorkerError, match="was asked to stop before node 0 listened"):
        wait_for_head(NodePlace(2, 1, "127.0.0.1", 9, "a"))
