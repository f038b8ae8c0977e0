"""What stopped a rank, on disk: a launcher passes on neither its text nor its exit code."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.codec import decode_text, encode_text
from bench.errors import BenchError, DoesNotFit, ExitCode, Preempted, RankLost, TimedOut, UsageError, WorkerError, error_for
from bench.facts.attempt import Failure
from bench.store.results import write_whole

SIGKILL, SIGTERM = 9, 15


def write_failure(run_dir: Path, rank: int, exit_code: int, text: str) -> None:
    """Nothing; what stopped a rank is on disk: beside its log, or where that cannot be written, in the folder of temporary files."""
    told = encode_text(Failure(rank=rank, exit_code=int(exit_code), text=text))
    try:
        write_whole(run_dir / "log" / f"failure{rank}.json", told)
    except OSError:
        write_whole(_elsewhere(os.getppid()) / f"failure{rank}.json", told)


def forget_failures(run_dir: Path) -> None:
    """Nothing; no failure of an earlier attempt is left to be taken for one of the next."""
    for file in _files(run_dir):
        file.unlink(missing_ok=True)


def failure_of(run_dir: Path, exit_codes: Mapping[int, int], world_size: int, killed_for_memory: bool) -> BenchError:
    """The first failure of ranks that ended so: a rank that was killed is the cause of what the others then ran into."""
    killed = {rank: -code for rank, code in exit_codes.items() if code < 0 and -code != SIGTERM}
    told = [failure for file in _files(run_dir) if (failure := _read(file))]
    if killed:
        return _killed(run_dir, *min(killed.items()), killed_for_memory)
    if not told:
        return _silent(run_dir, exit_codes)
    first = told[0]
    if first.exit_code != ExitCode.TIMEOUT:
        return error_for(first.exit_code, first.text)
    waited = {failure.rank for failure in told if failure.exit_code == ExitCode.TIMEOUT}
    missing = ", ".join(str(rank) for rank in range(world_size) if rank not in waited)
    log = run_dir / "log"
    return TimedOut(f"{first.text}; missing: rank {missing or 'unknown'}, its stack is in {log}/rank{missing or 'N'}.log")


def _killed(run_dir: Path, rank: int, signal: int, killed_for_memory: bool) -> BenchError:
    if signal == SIGKILL and killed_for_memory:
        return DoesNotFit(f"rank {rank} was killed because memory ran out; use a smaller train.micro_batch_size or model")
    return RankLost(f"rank {rank} was killed by signal {signal}; run the same command again; its log is {run_dir / 'log'}/rank{rank}.log")


def _silent(run_dir: Path, exit_codes: Mapping[int, int]) -> BenchError:
    rank, code = min(exit_codes.items())
    if code in (-SIGTERM, ExitCode.PREEMPTED):
        return Preempted(f"rank {rank} was asked to stop before it had begun")
    return WorkerError(f"rank {rank} ended with exit code {code} and left no message; see {run_dir / 'log'}/rank{rank}.log")


def _read(file: Path) -> Failure | None:
    try:
        return decode_text(Failure, file.read_bytes())
    except (OSError, UsageError):
        return None


def _files(run_dir: Path) -> list[Path]:
    """Files of failures, the first one first."""
    found = [*(run_dir / "log").glob("failure*.json"), *_elsewhere(os.getpid()).glob("failure*.json")]
    return sorted(found, key=lambda file: file.stat().st_mtime_ns)


def _elsewhere(launcher_pid: int) -> Path:
    return Path(tempfile.gettempdir()) / f"bench-{launcher_pid}"
