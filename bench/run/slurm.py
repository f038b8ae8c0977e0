"""Handing a job to Slurm: arguments as a list from end to end, so that nothing of a configuration is ever read by a shell."""

import math
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.errors import UsageError, WorkerError
from bench.facts.engine import SlurmEngine

SUBMIT_TIMEOUT_S = 60
LOG = "job-%j.log"  # %j is the number of the job
PATH = re.compile(r"[^%\\\x00-\x1f]+")  # Slurm reads % and \ in the name of a log as patterns


def sbatch_arguments(engine: SlurmEngine, name: str, folder: Path, script: Path, command: Sequence[str]) -> list[str]:
    """The command that submits `command` as a job that logs in `folder`. Raises UsageError for a folder that Slurm would misread."""
    if not PATH.fullmatch(str(folder)):
        raise UsageError(f"out: {str(folder)!r} has a % or a backslash, which Slurm replaces; choose another directory")
    options = {
        "job-name": re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:64] or "bench",
        "nodes": engine.n_nodes,
        "ntasks-per-node": 1,
        "time": math.ceil(engine.time_limit_s / 60),
        "signal": f"{engine.signal}@{math.ceil(engine.signal_lead_s)}",
        "open-mode": "append",
        "output": folder / LOG,
        "partition": engine.partition,
        "account": engine.account,
        "gres": engine.gres,
        "constraint": engine.constraint,
        "cpus-per-task": engine.cpus_per_node,
    }
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return ["sbatch", "--parsable", "--requeue" if engine.requeue else "--no-requeue", *given, str(script), *command]


def submit_job(arguments: Sequence[str], variables: Mapping[str, str]) -> str:
    """The number of the submitted job. Raises UsageError where Slurm is not here or refuses the job."""
    try:
        told = subprocess.run(
            arguments, env={**os.environ, **variables}, capture_output=True, text=True, timeout=SUBMIT_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise UsageError("engine: no sbatch on PATH; run it on a machine of the cluster, or use scripts/sky or scripts/k8s") from None
    except subprocess.TimeoutExpired:
        raise WorkerError(f"engine: Slurm has not answered within {SUBMIT_TIMEOUT_S} s; see whether squeue --me has the job") from None
    if told.returncode:
        raise UsageError(f"engine: Slurm refuses the job: {' '.join(told.stderr.split())[:300]}")
    return told.stdout.strip().split(";")[0]
