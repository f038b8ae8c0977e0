"""The run directory: made once, every file whole or not there."""

import json
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bench.codec import decode_text, encode_text, json_schema
from bench.errors import UsageError, WorkerError, error_for
from bench.facts.measurement import Measurement
from bench.facts.result import Measured, Result
from bench.masking import masked_text

RESULT = "result.json"
CONFIG = "config.yaml"
MEASURED = "measured.json"
STEPS = "steps.jsonl"
REPORT = "report.md"
SCHEMA = Path(__file__).with_name("result.schema.json")


def make_run_dir(out: str | None, name: str) -> Path:
    """A writable directory for one run: `out`, or a new one below runs/. Raises UsageError where that cannot be."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = Path(out) if out else Path("runs") / name / f"{stamp}-{secrets.token_hex(2)}"
    try:
        (path / "log").mkdir(parents=True, exist_ok=True)
        probe = path / f".writable-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UsageError(f"out: {path} cannot be written ({error.strerror}); choose a directory that can") from None
    if (path / RESULT).exists():
        raise UsageError(f"out: {path} already holds a {RESULT}, and results are never overwritten; choose another directory")
    return path


def write_whole(path: Path, text: str) -> None:
    """Nothing; the file holds the text, its secrets masked, or what it held before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(masked_text(text))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_file(path: Path, text: str) -> None:
    """Nothing; a file that a user named holds the text. Raises UsageError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise UsageError(f"out: {path} cannot be written ({error.strerror}); choose a file that can") from None


def write_config(run_dir: Path, plain: dict[str, Any]) -> None:
    """Nothing; config.yaml holds the configuration."""
    write_whole(run_dir / CONFIG, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def read_config(run_dir: Path) -> dict[str, Any]:
    """The configuration as config.yaml holds it."""
    plain = yaml.safe_load((run_dir / CONFIG).read_text(encoding="utf-8"))
    assert isinstance(plain, dict)
    return plain


def write_result(run_dir: Path, result: Result) -> None:
    """Nothing; result.json holds the result."""
    write_whole(run_dir / RESULT, encode_text(result))


def read_result(path: Path) -> Result:
    """The result in a file, or in a run directory. Raises UsageError where it is none."""
    file = path / RESULT if path.is_dir() else path
    try:
        return decode_text(Result, file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}); give a run directory or its {RESULT}") from None


def make_launch_dir(run_dir: Path, launch: int, n_launches: int) -> Path:
    """Where one of several launches leaves what it writes; the run directory itself where there is only one."""
    path = run_dir if n_launches == 1 else run_dir / "log" / f"launch{launch}"
    (path / "log").mkdir(parents=True, exist_ok=True)
    return path


def write_steps(run_dir: Path, launches: Sequence[Measurement]) -> None:
    """Nothing; steps.jsonl holds every step of every rank of every launch, one a line."""
    lines = [
        {"launch": launch, "rank": r.rank, "phase": phase, "step": i, "step_s": step_s}
        for launch, measurement in enumerate(launches)
        for r in measurement.ranks
        for phase, steps in (("warmup", r.warmup_s), ("timed", r.step_s))
        for i, step_s in enumerate(steps)
    ]
    write_whole(run_dir / STEPS, "".join(json.dumps(line) + "\n" for line in lines))


def write_failure(run_dir: Path, rank: int, exit_code: int, text: str) -> None:
    """Nothing; what stopped a rank is on disk, since a launcher passes on neither its text nor its exit code."""
    write_whole(run_dir / "log" / f"failure{rank}.json", json.dumps({"rank": rank, "exit_code": exit_code, "text": text}))


def failure_of(run_dir: Path, failed_ranks: dict[int, int]) -> Exception:
    """The first failure that a rank wrote down, or what is known of a rank that wrote nothing."""
    files = sorted((run_dir / "log").glob("failure*.json"), key=lambda file: file.stat().st_mtime_ns)
    if files:
        told = json.loads(files[0].read_text(encoding="utf-8"))
        return error_for(told["exit_code"], told["text"])
    rank, code = next(iter(sorted(failed_ranks.items())))
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return WorkerError(f"rank {rank} {how} and left no message; see {run_dir / 'log' / f'rank{rank}.log'}")


def result_schema() -> dict[str, Any]:
    """The JSON Schema of result.json, as made from the types; the file beside this one is its copy for others."""
    return json_schema(Result)


def write_measured(run_dir: Path, measured: Measured) -> None:
    """Nothing; what the ranks measured is on disk for the process that started them."""
    write_whole(run_dir / MEASURED, encode_text(measured))


def take_measured(run_dir: Path) -> Measured:
    """What the ranks measured; its file gives way to result.json."""
    file = run_dir / MEASURED
    measured = decode_text(Measured, file.read_bytes())
    file.unlink()
    return measured
