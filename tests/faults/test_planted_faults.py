"""Faults planted into real runs are found, named, and do not pass for a training speed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.facts.breakdown import Phase
from bench.facts.measurement import WarningKind
from bench.facts.result import Result
from bench.run.plant import fault_of
from bench.store.results import read_result
from tests.conftest import SMALL, Bench

alone = pytest.mark.alone
BRIEF = ("measure.breakdown_steps=0", "measure.warmup_min_steps=4", "measure.warmup_max_steps=4")


def test_what_is_done_is_not_lost_to_threads_that_abort_at_the_end(bench: Bench, tmp_path: Path) -> None:
    """Seen of torch: "terminate called without an active exception" from a rank that had measured everything and said so."""
    done = bench("run", *SMALL, *BRIEF, "measure.steps=5", "out=kept", env={"BENCH_PLANT": "abort:1:1"})
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "kept").measurement.world_size == 2


def text_of(result: Result, kind: WarningKind) -> str:
    return "; ".join(w.text for w in result.warnings if w.kind is kind)


@alone
def test_a_slow_rank_is_named(bench: Bench, tmp_path: Path) -> None:
    """Rank 1 sleeps 0.4 s before every step; its steps are as long as those of rank 0, its own work is not."""
    done = bench(
        "run", *SMALL, "measure.steps=5", "measure.breakdown_steps=6", "measure.warmup_max_steps=6", "out=kept",
        env={"BENCH_PLANT": "slow_rank:1:0.4"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = read_result(tmp_path / "kept")
    steps = [sum(r.step_s) for r in result.measurement.ranks]
    assert steps[0] == pytest.approx(steps[1], rel=0.1)
    breakdown = result.measurement.breakdown
    assert breakdown is not None
    assert breakdown.straggler is not None
    assert (breakdown.straggler.rank, breakdown.straggler.host) == (1, result.environment.host)
    assert "rank 1 on " in text_of(result, WarningKind.SLOW_RANK)
    assert breakdown.exposed_communication_s is not None
    assert breakdown.ranks[0].exposed_s is not None
    assert breakdown.ranks[0].exposed_s > 0.2  # rank 0 waits
    assert breakdown.exposed_communication_s < 0.2  # which is no communication
    assert "warning: rank 1 on " in done.stdout


@alone
@pytest.mark.slow
def test_a_slow_stage_lengthens_the_bubble_of_the_other(bench: Bench, tmp_path: Path) -> None:
    """Stage 1 sleeps 0.4 s before every step, which is not its bubble; stage 0 has nothing to do meanwhile."""
    few = ("measure.steps=2", "measure.warmup_min_steps=2", "measure.warmup_max_steps=2", "measure.breakdown_steps=3")
    done = bench(
        "run", *SMALL, "plan=pp", "plan.pipeline_parallel_size=2", *few, "out=kept", env={"BENCH_PLANT": "slow_rank:1:0.4"}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    breakdown = read_result(tmp_path / "kept").measurement.breakdown
    assert breakdown is not None
    assert breakdown.step_s is not None
    assert breakdown.bubble_s is not None
    waits = [r.phase_s[Phase.BUBBLE] for r in breakdown.ranks]
    assert waits[0] > 0.4 > waits[1]
    assert breakdown.bubble_s == pytest.approx(sum(waits) / 2)
    assert 0.2 < breakdown.bubble_s < breakdown.step_s
    assert "Bubble: " in done.stdout


@alone
@pytest.mark.slow
def test_a_drift_is_a_trend(bench: Bench, tmp_path: Path) -> None:
    """Every step takes 4 ms more than the one before: 160 ms over 40 steps."""
    done = bench("run", *SMALL, *BRIEF, "measure.steps=40", "out=kept", env={"BENCH_PLANT": "drift:0.004"})
    assert done.returncode == 0, done.stderr
    assert "from first to last" in text_of(read_result(tmp_path / "kept"), WarningKind.TREND)


def test_parameters_that_are_no_numbers_make_the_run_invalid_and_keep_it(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", *SMALL, *BRIEF, "measure.steps=12", "out=kept", env={"BENCH_PLANT": "nan:8"})
    assert done.returncode == 3, done.stderr
    assert "not a training speed: the loss is nan" in done.stderr
    assert "Traceback" not in done.stderr
    m = read_result(tmp_path / "kept").measurement
    assert "not finite" in m.invalid[0]
    assert m.loss_last is None
    assert m.loss_first is not None
    assert len(m.ranks[0].step_s) == 12
    assert "not valid: the loss is nan" in (tmp_path / "kept" / "report.md").read_text()


@contextmanager
def busy_processes(n: int) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_foreign_load_is_warned_of(bench: Bench, tmp_path: Path) -> None:
    with busy_processes(2):
        done = bench("run", *SMALL, *BRIEF, "measure.steps=20", "out=kept")
    assert done.returncode == 0, done.stderr
    assert "other processes kept " in text_of(read_result(tmp_path / "kept"), WarningKind.BUSY_MACHINE)


def test_a_fault_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UsageError, match="slow_rank:RANK:SECONDS"):
        fault_of("explode")
