"""Bus bandwidth as nccl-tests define it, groups of ranks, repeats, and profiles as files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bench.codec import encode
from bench.config.profiles import find_profile, profiles
from bench.errors import UsageError
from bench.facts.hardware import Backend, Precision
from bench.facts.measurement import Environment
from bench.facts.profile import (
    PROFILE_VERSION,
    Cache,
    Collective,
    CollectivePoint,
    DeviceProfile,
    GroupAxis,
    ProbeKind,
    ProbePolicy,
    ProbeSamples,
    RepeatPolicy,
    Timing,
    WorkUnit,
    bus_factor,
)
from bench.facts.progress import unheard
from bench.report.markdown import markdown_table
from bench.report.profile_tables import profile_report, profile_tables
from bench.run.collectives import buffer_sizes, find_groups, probe_collectives
from bench.run.devices import LocalDevice
from bench.run.repeat import MOST_SAMPLES, repeat, repeat_calls
from bench.stats import median_interval
from bench.store.profiles import KEPT, read_profile, write_profile
from bench.store.results import refuse_to_overwrite

QUICK = RepeatPolicy(budget_s=0.05, target_ci=0.1, confidence=0.95, min_samples=5)
POLICY = ProbePolicy(
    repeat=QUICK,
    matmul_sizes=(8,),
    attention_seq_lens=(8,),
    memory_sizes_bytes=(1024,),
    optimizer_parameters=(10,),
    load_s=0.2,
    collective_min_bytes=1024,
    collective_max_bytes=None,
    collective_size_factor=4,
    collective_timeout_s=10.0,
)
TIMING = Timing(samples_s=(1.0, 2.0, 3.0), calls_per_sample=1, median_s=2.0, low_s=1.0, high_s=3.0, confidence=0.95)
CPU = LocalDevice(Backend.CPU, 0)


def profile(**changes: Any) -> DeviceProfile:
    """8 GFLOP in 2 s, and 1 GiB reduced over 4 ranks in 2 s."""
    probe = ProbeSamples(
        kind=ProbeKind.MATMUL,
        name="",
        sizes={"m": 1000, "k": 1000, "n": 4000},
        precision=Precision.FP32,
        cache=Cache.WARM,
        work=8e9,
        work_unit=WorkUnit.FLOPS,
        timing=TIMING,
        rate_per_s=4e9,
        rate_low_per_s=8e9 / 3,
        rate_high_per_s=8e9,
    )
    point = CollectivePoint(
        collective=Collective.ALL_REDUCE,
        axis=GroupAxis.WITHIN_NODE,
        n_ranks=4,
        size_bytes=2**30,
        timing=TIMING,
        algorithm_bytes_per_s=2**29,
        bus_bytes_per_s=1.5 * 2**29,
        correct=True,
    )
    environment = Environment(
        host="h",
        platform="p",
        python="3",
        packages={},
        cpu="c",
        n_cores=1,
        memory_bytes=1,
        devices=("Round 1",),
        driver=None,
        variables={},
        started_at="2026-01-01T00:00:00+00:00",
    )
    fields: dict[str, Any] = {
        "profile_version": PROFILE_VERSION,
        "device_name": "Round 1",
        "backend": Backend.CPU,
        "world_size": 4,
        "n_nodes": 1,
        "threads_per_rank": 1,
        "communication": "gloo",
        "date": "2026-01-01",
        "environment": environment,
        "target": "grok1_314b",
        "probes": (probe,),
        "collectives": (point,),
        "absent": (),
        "warnings": (),
    }
    return DeviceProfile(**fields | changes)


@pytest.mark.parametrize(
    ("collective", "factor"),
    [
        # of 8 ranks: each sends 7 of 8 parts once to gather or to scatter, and twice to reduce to all
        (Collective.ALL_REDUCE, 2 * 7 / 8),
        (Collective.ALL_GATHER, 7 / 8),
        (Collective.REDUCE_SCATTER, 7 / 8),
        (Collective.ALL_TO_ALL, 7 / 8),
        (Collective.SEND_RECV, 1.0),
    ],
)
def test_bus_bandwidth_is_that_of_nccl_tests(collective: Collective, factor: float) -> None:
    assert bus_factor(collective, 8) == factor


def test_groups_are_within_a_node_across_nodes_and_all() -> None:
    # two nodes of four
    found = [(g.axis, g.ranks) for g in find_groups([0, 0, 0, 0, 4, 4, 4, 4])]
    assert found == [
        (GroupAxis.WITHIN_NODE, (0, 1)),
        (GroupAxis.WITHIN_NODE, (0, 1, 2, 3)),
        (GroupAxis.ACROSS_NODES, (0, 4)),
        (GroupAxis.WORLD, tuple(range(8))),
    ]


def test_one_rank_per_node_is_across_nodes_only() -> None:
    assert [(g.axis, g.ranks) for g in find_groups([0, 1, 2])] == [(GroupAxis.ACROSS_NODES, (0, 1)), (GroupAxis.ACROSS_NODES, (0, 1, 2))]


def test_sizes_grow_to_an_eighth_of_the_free_memory() -> None:
    # 1 MiB / 8 = 128 KiB; 1, 4, 16, 64 KiB
    assert buffer_sizes(POLICY, 2**20) == [1024, 4096, 16384, 65536]


def test_one_rank_has_no_collectives_and_says_so() -> None:
    points, absent = probe_collectives(POLICY, CPU, [0], unheard)
    assert points == ()
    assert "nobody to exchange with" in absent[0].reason


def test_the_first_calls_are_never_timed() -> None:
    calls: list[int] = []

    def call() -> None:
        # the first two calls take 50 ms
        calls.append(sum(range(2_000_000 if len(calls) < 2 else 1000)))

    timing = repeat_calls(QUICK, CPU, call)
    assert max(timing.samples_s) < 0.01
    assert timing.low_s <= timing.median_s <= timing.high_s


def test_a_short_call_is_timed_many_in_a_row() -> None:
    assert repeat_calls(QUICK, CPU, lambda: None).calls_per_sample >= 10


def test_the_cold_call_is_preceded_each_time_and_timed_alone() -> None:
    order: list[str] = []
    timing = repeat_calls(QUICK, CPU, lambda: order.append("call"), lambda: order.append("before"))
    assert timing.calls_per_sample == 1
    assert order[2:] == ["before", "call"] * len(timing.samples_s)


def test_repeats_end_at_the_target_the_budget_or_the_cap() -> None:
    steady = repeat(QUICK, lambda n: [1e-5] * n)
    assert len(steady.samples_s) == 5
    noisy = iter(range(100_000))
    capped = repeat(QUICK, lambda n: [1e-5 if next(noisy) % 2 else 1e-6 for _ in range(n)])
    assert len(capped.samples_s) == MOST_SAMPLES
    # two seconds each: the least samples are taken, and no more
    slow = repeat(QUICK, lambda n: [2.0 + 3 * (i % 2) for i in range(n)])
    assert len(slow.samples_s) == 5


def test_the_interval_of_a_median_covers_it_as_often_as_it_says() -> None:
    numbers = np.random.default_rng(1).exponential(size=(500, 40))
    true_median = 0.6931471805599453
    hits = [low <= true_median <= high for low, _, high in (median_interval(row, 0.9) for row in numbers)]
    # 500 draws: standard error 0.013
    assert 0.86 <= sum(hits) / len(hits) <= 0.96


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_profile(tmp_path, profile())
    assert read_profile(tmp_path) == profile()
    with pytest.raises(UsageError, match=r"already holds a profile\.json"):
        refuse_to_overwrite(tmp_path, *KEPT)


def test_what_is_no_profile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("{}")
    with pytest.raises(UsageError, match="profile_version"):
        read_profile(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_profile(tmp_path / "nothing.json")


def test_a_kept_profile_is_found_by_the_name_of_its_device(tmp_path: Path) -> None:
    older, newer = profile(date="2025-01-01"), profile(date="2026-02-01")
    write_profile(tmp_path, older)
    (tmp_path / "newer.yaml").write_text(yaml.safe_dump(encode(newer)))
    assert profiles(tmp_path) == (newer, older)
    assert find_profile("Round 1", tmp_path) == newer
    assert find_profile("Round", tmp_path) is None


def test_tables_show_rates_and_bus_bandwidth_in_their_units() -> None:
    text = "\n".join(markdown_table(table) for table in profile_tables(profile()))
    assert "4.00 GFLOP/s" in text
    # 1 GiB / 2 s * 1.5 = 805 MB/s
    assert "805 MB/s" in text
    assert "1 GiB" in text
    assert profile_report(profile()).startswith("# Profile of Round 1")
