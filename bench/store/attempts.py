"""A run directory over several attempts: who works in it, what was asked, what the launches have left, how it stands."""

import fcntl
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from bench.codec import decode_text, encode_text
from bench.errors import Preempted, UsageError
from bench.facts.attempt import Status
from bench.facts.checkpoint import STATES
from bench.facts.result import Measured
from bench.store.results import MEASURED, RESULT, write_whole

REQUEST = "request.yaml"
STATUS = "status.json"
LOCK = ".lock"
TORN = ".torn"
# keys that may differ between two attempts at one run: they change nothing that is measured
ASKED_ANEW = ("out", "name", "results_uri", "sweep", "page", "launch", "engine", "compare", "gate", "format", "trackers", "event_log")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Nobody else works in the folder meanwhile; the kernel lets go of it however this process ends. Raises UsageError."""
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read(200).strip() or "another process"
            raise UsageError(f"out: {folder} is in use by {owner}; wait until that ends, or choose another directory") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


@contextmanager
def at_work(launch_dir: Path) -> Iterator[None]:
    """A rank works in the launch directory meanwhile; who goes on with the run waits for it, even where its launcher was killed."""
    with (launch_dir / "log" / LOCK).open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def clear_up(run_dir: Path, wait_s: float) -> None:
    """Nothing; ranks that an earlier attempt has left are gone, and so are files that it was writing when it was killed.

    Raises Preempted where a rank is still there after so long.
    """
    for folder in (run_dir, *(run_dir / "log").glob("launch*")):
        if (lock := folder / "log" / LOCK).exists() and not _is_free(lock, wait_s):
            raise Preempted(f"ranks of an earlier attempt are still at work in {folder}; wait or end them, then run it again")
        for file in (*folder.glob(".*.tmp"), *(folder / "log").glob(".*.tmp")):
            file.unlink(missing_ok=True)


def _is_free(lock: Path, wait_s: float) -> bool:
    until = time.monotonic() + wait_s
    with lock.open("a", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > until:
                    return False
                time.sleep(0.1)
            else:
                return True


def begin(run_dir: Path, plain: Mapping[str, Any]) -> None:
    """Nothing; what is asked for is on disk. Raises UsageError where something else was asked for in this directory before."""
    asked = {key: value for key, value in plain.items() if key not in ASKED_ANEW}
    file = run_dir / REQUEST
    try:
        before = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        before = None
    if isinstance(before, dict):
        if changed := _first_change(before, asked):
            raise UsageError(f"out: {run_dir} was begun with {changed}; give the same again, or choose another directory")
        return
    if (run_dir / RESULT).exists():
        raise UsageError(f"out: {run_dir} already holds a {RESULT}, and results are never overwritten; choose another directory")
    write_whole(file, yaml.safe_dump(asked, sort_keys=False, allow_unicode=True))


def _first_change(before: Any, now: Any, path: str = "") -> str | None:
    if isinstance(before, dict) and isinstance(now, dict):
        changes = (_first_change(before.get(key), now.get(key), f"{path}.{key}" if path else str(key)) for key in {**before, **now})
        return next((change for change in changes if change), None)
    return None if before == now else f"{path}={before}, now {now}"


def launch_dir(run_dir: Path, k: int, n_launches: int) -> Path:
    """Where launch k leaves what it writes; the run directory itself where there is only one."""
    path = run_dir if k == 0 and n_launches == 1 else run_dir / "log" / f"launch{k}"
    (path / "log").mkdir(parents=True, exist_ok=True)
    return path


def kept_launches(run_dir: Path) -> dict[int, Measured]:
    """What launches have left, whole or in part, by number. A torn file is put aside and counts as none."""
    found: dict[int, Measured] = {}
    for file in (run_dir / MEASURED, *(run_dir / "log").glob(f"launch*/{MEASURED}")):
        k = file.parent.name.removeprefix("launch") if file.parent != run_dir else "0"
        if not file.is_file() or not k.isdigit():
            continue
        try:
            found[int(k)] = decode_text(Measured, file.read_bytes())
        except UsageError:  # and not who asks to stop meanwhile: the file is whole then
            file.replace(file.with_name(file.name + TORN))
    return dict(sorted(found.items()))


def put_aside(run_dir: Path, k: int) -> None:
    """Nothing; what launch k has left no longer counts, and is still there."""
    for folder in _folders(run_dir, k):
        if (file := folder / MEASURED).is_file():
            file.replace(_free(file.with_name("measured-elsewhere.json")))


def _folders(run_dir: Path, k: int) -> tuple[Path, ...]:
    """Where launch k may have worked."""
    return (*([run_dir] if k == 0 else []), run_dir / "log" / f"launch{k}")


def hand_on_states(run_dir: Path, k: int, launch_dir: Path) -> None:
    """Nothing; the states that launch k has saved are now those of the launch in `launch_dir`, which goes on from them."""
    for folder in _folders(run_dir, k):
        if (states := folder / STATES).is_dir() and not (launch_dir / STATES).exists():
            states.rename(launch_dir / STATES)


def _free(path: Path) -> Path:
    return next(p for i in range(10**6) if not (p := path.with_stem(f"{path.stem}{i or ''}")).exists())


def forget_launches(run_dir: Path) -> None:
    """Nothing; result.json holds all that the launches have left, and their own files are gone."""
    for file in (run_dir / MEASURED, *(run_dir / "log").glob(f"launch*/{MEASURED}")):
        file.unlink(missing_ok=True)


def write_status(run_dir: Path, status: Status) -> None:
    """Nothing; status.json says how the run stands."""
    write_whole(run_dir / STATUS, encode_text(status))


def read_status(run_dir: Path) -> Status | None:
    """How the run stands; None where nobody has begun, or nothing readable is there."""
    try:
        return decode_text(Status, (run_dir / STATUS).read_bytes())
    except (OSError, UsageError):
        return None
