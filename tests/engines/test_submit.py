"""What `bench submit` hands to Slurm: a list of arguments, each as it was given, and nothing for a shell to read."""

import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from bench.config.compose import compose, conf_dir
from bench.errors import UsageError
from bench.run.slurm import sbatch_arguments
from bench.submit import submit
from tests.conftest import SMALL, run_bench

FAKE_SBATCH = """#!/bin/sh
for argument in "$@"; do printf '%s\\n' "$argument"; done > "$FAKE_OUT"
printf '%s\\n' "$BENCH_EXIT_CODES" >> "$FAKE_OUT"
echo "42;cluster"
"""


@pytest.fixture
def slurm_path(tmp_path: Path) -> dict[str, str]:
    """Variables with an sbatch on PATH that writes down what it was given."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sbatch").write_text(FAKE_SBATCH)
    (programs / "sbatch").chmod(0o755)
    return {"PATH": f"{programs}:{os.environ['PATH']}", "FAKE_OUT": str(tmp_path / "given")}


def test_the_same_command_goes_to_slurm_word_for_word(slurm_path: dict[str, str], tmp_path: Path) -> None:
    engine = ("engine.partition=spot", "engine.n_nodes=2", "engine.gres=gpu:8")
    nasty = "name='$(touch planted);`id`'"
    done = run_bench("submit", *SMALL, *engine, nasty, "out=my_run", cwd=tmp_path, env=slurm_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "42\n"
    out = tmp_path / "my_run"
    assert done.stderr == f"job 42; log {out}/slurm/job-42.log; exit codes {out}/slurm/exit_codes; result in {out}\n"
    given = (tmp_path / "given").read_text().splitlines()
    # 3600 s are 60 min
    assert {"--parsable", "--requeue", "--nodes=2", "--ntasks-per-node=1", "--time=60", "--signal=USR1@90"} <= set(given)
    assert {"--open-mode=append", "--partition=spot", "--gres=gpu:8", f"--output={out}/slurm/job-%j.log"} <= set(given)
    script = given.index(str(conf_dir() / "engine" / "slurm.sbatch"))
    assert given[script + 2 : script + 6] == ["-u", "-m", "bench", "run"]
    assert given[script + 6 :] == [*SMALL, nasty, f"out={out}", f"{out}/slurm/exit_codes"]
    assert shlex.split((out / "slurm" / "submit.sh").read_text()) == ["sbatch", *given[:-1]]
    # nothing of it was read by a shell
    assert "--job-name=-touch-planted-id-" in given
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("engine.partition=--wrap", "engine: partition"),
        ("engine.account='a b'", "engine: account"),
        ("engine.signal=KILL", "engine: signal 'KILL' must be one of TERM, USR1, USR2"),
        ("engine.time_limit_s=30", "engine: time_limit_s 30 must be at least 60"),
        ("engine.signal_lead_s=4000", "engine: signal_lead_s 4000"),
        ("engine=slurn", "did you mean 'slurm'"),
        ("engine.verb=worker", "engine.verb"),
    ],
)
def test_an_engine_that_cannot_be_is_refused_before_anything_is_made(override: str, why: str) -> None:
    with pytest.raises(UsageError) as told:
        compose([override])
    assert why in str(told.value)


def test_a_directory_that_slurm_would_misread_is_refused(tmp_path: Path) -> None:
    engine = compose([]).engine
    with pytest.raises(UsageError, match="which Slurm replaces"):
        sbatch_arguments(engine, "x", tmp_path / "100%j", Path("s"), [])


def test_no_slurm_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="engine: no sbatch on PATH"):
        submit(*SMALL, f"out={tmp_path}/kept")


def test_a_wrong_configuration_is_told_now_and_not_by_the_job(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'tiny'"):
        submit("model=tinny", f"out={tmp_path}/kept")
    assert not (tmp_path / "kept").exists()


def test_the_batch_script_hands_on_codes_and_requeues_75_once(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {
        "srun": '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n',
        "scontrol": f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$1" = requeue ] || echo "JobState=$STATE"\n',
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    script = conf_dir() / "engine" / "slurm.sbatch"
    assert not script.stat().st_mode & stat.S_ISUID
    for code, state, n_requeued in ((0, "RUNNING", 0), (2, "RUNNING", 0), (75, "RUNNING", 1), (75, "CANCELLED", 1)):
        env = {"PATH": f"{programs}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "STATE": state, "BENCH_EXIT_CODES": str(tmp_path / "codes")}
        done = subprocess.run(["/bin/bash", script, "/bin/sh", "-c", f"exit {code}"], env=env, check=False)
        assert done.returncode == code
        asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
        assert asked.count("requeue 7") == n_requeued
    assert (tmp_path / "codes").read_text().splitlines()[-1] == "attempt 0 exit_code 75"
