"""Measured bus bandwidth against a timing that shares no code with it, on two ranks over loopback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone

SIZE_BYTES = 2 * 2**20
LEAST_PAIRS, MOST_S = 20, 40
AGREES = 0.1  # of the median ratio from 1, at most

# Both timings in turn in the same two processes: whatever else the machine does meanwhile reaches both. Pairs go on until
# the interval of the median of their ratios lies on one side of the limits, or their time is up.
SCRIPT = """
import json, sys, time
from datetime import timedelta
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist

from bench.facts.hardware import Backend
from bench.facts.profile import Collective, GroupAxis, RepeatPolicy
from bench.run.collectives import RankGroup, measure_point
from bench.run.devices import LocalDevice

N_CALLS = 8
torch.set_num_threads(1)
dist.init_process_group("gloo", timeout=timedelta(seconds=60))
rank, n = dist.get_rank(), dist.get_world_size()
out, size_bytes, least, most_s, agrees = Path(sys.argv[1]), *map(int, sys.argv[2:5]), float(sys.argv[5])
policy = RepeatPolicy(budget_s=0.001, target_ci=0.001, confidence=0.95, min_samples=N_CALLS)
whole, other, part = torch.zeros(size_bytes // 4), torch.zeros(size_bytes // 4), torch.zeros(size_bytes // 4 // n)
communicator = dist.new_group(list(range(n)))  # one for both: another pair of sockets is another link
gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
calls = {
    "all_reduce": (2 * (n - 1) / n, lambda: dist.all_reduce(whole, group=communicator)),
    "all_gather": ((n - 1) / n, lambda: gather(whole, part, group=communicator)),
    "reduce_scatter": ((n - 1) / n, lambda: scatter(part, whole, group=communicator)),
    "all_to_all": ((n - 1) / n, lambda: dist.all_to_all_single(other, whole, group=communicator)),
}


def independent(name):
    factor, call = calls[name]
    for _ in range(3):
        call()
    times = []
    for _ in range(N_CALLS):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return size_bytes * factor / median(times)


def probed(name, communicator):
    group = RankGroup(GroupAxis.WITHIN_NODE, tuple(range(n)))
    point = measure_point(policy, LocalDevice(Backend.CPU, rank), group, Collective(name), communicator, size_bytes)
    assert point.correct and point.size_bytes == size_bytes
    return point.bus_bytes_per_s


def interval(ratios):
    # the median and its 99.9 % interval, from order statistics: it is looked at after every pair
    ordered, half = sorted(ratios), 1.65 * len(ratios) ** 0.5
    middle = len(ordered) / 2
    return ordered[max(int(middle - half), 0)], median(ordered), ordered[min(int(middle + half), len(ordered) - 1)]


found = {}
for name in calls:
    ratios, begun, open_ = [], time.perf_counter(), torch.ones(1)
    while open_.item():
        if len(ratios) % 2:
            ratio = probed(name, communicator) / independent(name)
        else:
            ratio = 1 / (independent(name) / probed(name, communicator))
        ratios.append(ratio)
        low, _, high = interval(ratios)
        decided = (1 - agrees < low and high < 1 + agrees) or low > 1 + agrees or high < 1 - agrees
        open_.fill_(len(ratios) < least or (not decided and time.perf_counter() - begun < most_s))
        dist.broadcast(open_, 0)
    found[name] = interval(ratios)
if rank == 0:
    out.write_text(json.dumps(found))
dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def ratios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float, float]]:
    """Probed over independently timed bus bandwidth: the median of the pairs within its interval."""
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "pairs.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(folder / "pairs.py"), str(folder / "ratios.json"), *map(str, (SIZE_BYTES, LEAST_PAIRS, MOST_S, AGREES))]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    read: dict[str, tuple[float, float, float]] = json.loads((folder / "ratios.json").read_text())
    return read


@pytest.mark.parametrize("collective", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
def test_probed_bus_bandwidth_agrees_with_an_independent_timing(ratios: dict[str, tuple[float, float, float]], collective: str) -> None:
    low, ratio, high = ratios[collective]
    assert low <= 1 + AGREES
    assert high >= 1 - AGREES
    if low < 1 - AGREES or high > 1 + AGREES:
        pytest.skip(f"this machine is too unsteady to tell now: {ratio:.2f}, {low:.2f} to {high:.2f}, after {MOST_S} s of pairs")
