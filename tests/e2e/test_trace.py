"""The verb trace, as a user starts it."""

from pathlib import Path

import pytest

from bench.facts.profile import Collective
from bench.facts.trace import MeshAxis
from bench.store.profiles import read_trace
from tests.conftest import Bench

HUNDRED_THOUSAND = ("plan=fsdp_tp", "plan.tensor_parallel_size=8", "plan.data_parallel_replicate_size=1250", "n_devices=100000")


@pytest.mark.slow  # twenty seconds; test_traffic traces a hundred thousand devices of a small model in the quick suite
def test_grok_1_on_a_hundred_thousand_devices_takes_seconds(bench: Bench, tmp_path: Path) -> None:
    done = bench("trace", *HUNDRED_THOUSAND, "out=kept", timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["kept in kept"]
    for word in ("grok1_314b", "all gather", "data replicate", "1,250", "give the same collectives"):
        assert word in done.stdout
    traced = read_trace(tmp_path / "kept")
    assert traced.plan.world_size == 100_000
    assert traced.counts.collectives == traced.formula
    # 64 layers and the rest of the model, each reduced once over the 1,250 copies
    copies = [c for c in traced.counts.collectives if c.axis is MeshAxis.DATA_REPLICATE]
    assert [(c.collective, c.group_size) for c in copies] == 2 * [(Collective.ALL_REDUCE, 1250)]
    assert sum(c.n_calls for c in copies) == 65
    again = bench("trace", *HUNDRED_THOUSAND, "out=kept")
    assert again.returncode == 2
    assert "never overwritten" in again.stderr


def test_a_plan_that_torch_cannot_trace_is_one_line_and_exit_2(bench: Bench, tmp_path: Path) -> None:
    done = bench("trace", "plan=ddp", "n_devices=8")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "use plan=zero2" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_ranks_that_somebody_started_are_refused(bench: Bench) -> None:
    ranks = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    done = bench("trace", "plan=fsdp", "n_devices=8", env=ranks)
    assert done.returncode == 2
    assert "2 ranks; one process traces" in done.stderr
