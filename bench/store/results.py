"""The run directory: made once, every file whole or not there."""

import json
import os
import secrets
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bench.codec import decode_text, encode_text, json_schema
from bench.errors import UsageError
from bench.facts.measurement import Measurement
from bench.facts.result import Measured, Result
from bench.masking import masked_text

RESULT = "result.json"
CONFIG = "config.yaml"
MEASURED = "measured.json"
STEPS = "steps.jsonl"
PARTIAL = "partial.json"
REPORT = "report.md"
EVENT_LOG = "mlperf.log"
PAGE = "report.html"
SCHEMA = Path(__file__).with_name("result.schema.json")


def make_run_dir(out: str | None, name: str) -> Path:
    """A writable directory without a result: `out`, or a new one below runs/. Raises UsageError where that cannot be."""
    path = open_run_dir(out, name)
    refuse_to_overwrite(path, RESULT)
    return path


def open_run_dir(out: str | None, name: str) -> Path:
    """A writable directory: `out`, which may hold an earlier attempt, or a new one below runs/. Raises UsageError."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = Path(out) if out else Path("runs") / name / f"{stamp}-{secrets.token_hex(2)}"
    try:
        (path / "log").mkdir(parents=True, exist_ok=True)
        probe = path / f".writable-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UsageError(f"out: {path} cannot be written ({error.strerror}); choose a directory that can") from None
    return path


def refuse_to_overwrite(run_dir: Path, *names: str) -> None:
    """Nothing; raises UsageError where the directory already holds one of these files."""
    for name in names:
        if (run_dir / name).exists():
            raise UsageError(f"out: {run_dir} already holds a {name}, and results are never overwritten; choose another directory")


def read_kept(path: Path, name: str) -> bytes:
    """What a file holds, or the one of that name in a run directory. Raises UsageError where it cannot be read."""
    file = path / name if path.is_dir() else path
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}); give a run directory or its {name}") from None


def write_whole(path: Path, text: str) -> None:
    """Nothing; the file holds the text, secrets masked, or what it held before. A folder taken away meanwhile is made again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(masked_text(text))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # asked to stop, too
        temporary.unlink(missing_ok=True)
        raise


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


def write_partial(run_dir: Path, result: Result) -> None:
    """Nothing; partial.json holds what a run that goes on later has measured so far."""
    write_whole(run_dir / PARTIAL, encode_text(result))


def read_result(path: Path) -> Result:
    """The result in a file, or in a run directory. Raises UsageError where it is none."""
    return decode_text(Result, read_kept(path, RESULT))


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


def result_schema() -> dict[str, Any]:
    """The JSON Schema of result.json, as made from the types; the file beside this one is its copy for others."""
    return json_schema(Result)


def write_measured(run_dir: Path, measured: Measured) -> None:
    """Nothing; what the ranks measured is on disk for the process that started them."""
    write_whole(run_dir / MEASURED, encode_text(measured))
