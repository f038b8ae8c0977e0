"""`bench submit`: the same command, as a job of a cluster's engine."""

import re
import shlex
import sys

from bench.config.compose import compose, conf_dir
from bench.errors import UsageError
from bench.facts.figure import fact
from bench.run.slurm import LOG, sbatch_arguments, submit_job
from bench.store.results import RESULT, open_run_dir, write_whole


@fact
class Submitted:
    """A job in the queue, and where to look for what it does."""

    job: str
    run_dir: str
    log: str
    exit_codes: str  # a line for every attempt


def submit(*overrides: str) -> Submitted:
    """The job that will do `bench VERB OVERRIDES`; VERB is `engine.verb`.

    The run directory is made now and is the same for every attempt; it must be on a disk that all nodes share.
    Raises UsageError for a configuration that the job would refuse, and where Slurm is not here or refuses it.
    """
    swept = [text for text in overrides if not text.startswith("engine")]
    own = [text for text in overrides if text.startswith(("engine", "out=", "name="))]
    config = compose(own if _verb(own) == "sweep" else overrides)
    run_dir = open_run_dir(config.out, config.name).resolve()
    if (run_dir / RESULT).exists():
        raise UsageError(f"out: {run_dir} already holds a {RESULT}; choose another directory")
    folder = run_dir / "slurm"
    folder.mkdir(exist_ok=True)
    exit_codes = folder / "exit_codes"
    out = "out=" + _quoted(str(run_dir))
    command = [sys.executable, "-u", "-m", "bench", config.engine.verb, *(text for text in swept if not text.startswith("out=")), out]
    script = conf_dir() / "engine" / "slurm.sbatch"
    arguments = sbatch_arguments(config.engine, config.name, folder, script, command)
    write_whole(folder / "submit.sh", shlex.join(arguments) + "\n")
    job = submit_job(arguments, {"BENCH_EXIT_CODES": str(exit_codes), "BENCH_REQUEUE": str(int(config.engine.requeue))})
    return Submitted(job=job, run_dir=str(run_dir), log=str(folder / LOG.replace("%j", job)), exit_codes=str(exit_codes))


def _verb(overrides: list[str]) -> str:
    return compose(overrides).engine.verb


def _quoted(path: str) -> str:
    """The path as the command line reads it: in quotes where it has spaces or brackets."""
    return path if re.fullmatch(r"[\w/.-]+", path) else "'" + path.replace("'", "\\'") + "'"
