"""A real Slurm of two nodes: jobs of `bench submit` run over both, survive a requeue, and leave logs and exit codes where the docs say."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.facts.attempt import RunState
from bench.store.attempts import read_status
from bench.store.results import read_result
from tests.conftest import SMALL, run_bench
from tests.engines.slurm import Slurm, missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
QUICK = (*SMALL, "device.n_devices=1", "cluster=oracle_24k_h100", "measure.breakdown_steps=0")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if why := missing():
        pytest.skip(why)
    slurm = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


ENDLESS = "measure.target_ci=1e-9"  # until the budget is spent


def submit(slurm: Slurm, cwd: Path, *overrides: str) -> str:
    done = run_bench("submit", *QUICK, *overrides, cwd=cwd, env=slurm.variables)
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    assert f"slurm/job-{job}.log" in done.stderr
    return job


def wait_for_end(slurm: Slurm, job: str, timeout_s: float = 240) -> dict[str, str]:
    slurm.wait(lambda: slurm.job(job)["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"), timeout_s)
    return slurm.job(job)


def measured_steps(run_dir: Path) -> int:
    """Steps in the latest snapshot of a run that is at work, 0 where there is none."""
    kept = run_dir / "measured.json"
    try:
        return len(json.loads(kept.read_text())["measurement"]["ranks"][0]["step_s"])
    except FileNotFoundError:
        return 0


def test_a_job_of_two_nodes_requeued_in_mid_run_goes_on_and_ends_by_itself(slurm: Slurm, tmp_path: Path) -> None:
    out = tmp_path / "kept"
    job = submit(slurm, tmp_path, "engine.n_nodes=2", "engine.partition=spot", ENDLESS, "measure.budget_s=20", f"out={out}")
    slurm.wait(lambda: measured_steps(out) > 0, 120)
    slurm.control("requeue", job)
    slurm.wait(lambda: (status := read_status(out)) is not None and status.state is RunState.PARTIAL, 60)
    told = wait_for_end(slurm, job)
    assert (told["JobState"], told["ExitCode"], told["Restarts"]) == ("COMPLETED", "0:0", "1")
    result = read_result(out)
    assert result.measurement.world_size == 2
    assert result.measurement.invalid == ()
    assert result.launches, "what was measured before the requeue counts"
    log = (out / "slurm" / f"job-{job}.log").read_text()
    assert "kept in" in log
    assert (out / "slurm" / "exit_codes").read_text().splitlines()[-2:] == ["attempt 1 begun", "attempt 1 exit_code 0"]
    assert (out / "log" / "node1" / "log" / "rank1.log").exists()


def test_a_configuration_that_cannot_be_ends_the_job_with_2_and_is_not_tried_again(slurm: Slurm, tmp_path: Path) -> None:
    out = tmp_path / "kept"
    job = submit(slurm, tmp_path, "engine.n_nodes=2", "plan=tp", "plan.tensor_parallel_size=3", f"out={out}")
    told = wait_for_end(slurm, job, 150)
    assert (told["JobState"], told["ExitCode"], told["Restarts"]) == ("FAILED", "2:0", "0")
    assert (out / "slurm" / "exit_codes").read_text() == "attempt 0 begun\nattempt 0 exit_code 2\n"
    assert "bench: plan" in (out / "slurm" / f"job-{job}.log").read_text()


def test_a_job_that_its_user_cancels_is_not_put_back(slurm: Slurm, tmp_path: Path) -> None:
    out = tmp_path / "kept"
    job = submit(slurm, tmp_path, ENDLESS, "measure.budget_s=3600", f"out={out}")
    slurm.wait(lambda: measured_steps(out) > 0, 120)
    slurm.cancel(job)
    assert wait_for_end(slurm, job, 60)["JobState"] == "CANCELLED"
    slurm.wait(lambda: "exit_code 75" in (out / "slurm" / "exit_codes").read_text(), 60)
    time.sleep(8)  # longer than a requeued job waits
    assert slurm.job(job)["JobState"] == "CANCELLED"
    assert "attempt 1" not in (out / "slurm" / "exit_codes").read_text()


def test_what_slurm_refuses_is_told_in_one_line(slurm: Slurm, tmp_path: Path) -> None:
    done = run_bench("submit", *QUICK, "engine.partition=nowhere", "out=kept", cwd=tmp_path, env=slurm.variables)
    assert done.returncode == 2
    assert done.stderr.startswith("bench: engine: Slurm refuses the job: ")
    assert "partition" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_signal_before_the_time_limit_ends_the_attempt_with_75_and_requeues(slurm: Slurm, tmp_path: Path) -> None:
    out = tmp_path / "kept"
    limits = ("engine.time_limit_s=60", "engine.signal_lead_s=40", ENDLESS, "measure.budget_s=3600")
    job = submit(slurm, tmp_path, *limits, f"out={out}")
    slurm.wait(lambda: int(slurm.job(job)["Restarts"]) >= 1, 150)
    assert (out / "slurm" / "exit_codes").read_text().splitlines()[:2] == ["attempt 0 begun", "attempt 0 exit_code 75"]
    assert "asked to stop by SIGUSR1" in (out / "slurm" / f"job-{job}.log").read_text()
