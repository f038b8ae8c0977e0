"""Copies of finished points in an object store: local first, and whole or not there.

    results_uri/POINT/<16 digits of its sha256>/<file>   every file, under its content
    results_uri/POINT/manifest.json                      names, checksums and sizes; written last

Credentials and endpoint come from the environment, as the store's own tools read them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL,
GOOGLE_APPLICATION_CREDENTIALS ...); a URI that carries any is refused.
"""

import os
import secrets
import shutil
import threading
from pathlib import Path

from bench.codec import decode_text, encode_text
from bench.errors import StoreUnavailable, UsageError
from bench.facts.checkpoint import STATES
from bench.facts.mirror import MANIFEST_VERSION, CopyOutcome, Manifest, StoredFile, check_name, is_segment
from bench.facts.mirror import check_uri as check_plain_uri
from bench.store.objects import Store, cause_of, get, open_store, put, require_library, sha256_of, tried, within, write
from bench.store.results import RESULT

MANIFEST = "manifest.json"
DEADLINE_S = 120.0
MAX_MANIFEST_BYTES = 16 * 2**20


def check_uri(uri: str) -> str:
    """The URI without a slash at its end. Raises UsageError as `facts.mirror.check_uri`, and where no library here reads its scheme."""
    plain = check_plain_uri(uri)
    require_library(plain.split(":", maxsplit=1)[0])
    return plain


def point_uri(results_uri: str, point: str) -> str:
    """The address of one point below a results_uri. Raises UsageError for a name that leads elsewhere."""
    return f"{check_uri(results_uri)}/{check_name(point)}"


def points(results_uri: str, deadline_s: float = DEADLINE_S) -> tuple[str, ...]:
    """Names of the whole points below a results_uri, sorted. Raises StoreUnavailable (exit 75) where it cannot be read."""
    uri = check_uri(results_uri)
    try:
        return within(deadline_s, lambda stop: tried(lambda: _points(uri), stop))
    except Exception as error:  # noqa: BLE001  # stores raise whatever their libraries do
        raise StoreUnavailable(
            f"results_uri: {uri} cannot be listed ({cause_of(error)}); check network and rights, and run again"
        ) from None


def push(run_dir: Path, uri: str, deadline_s: float = DEADLINE_S) -> CopyOutcome:
    """What became of copying the finished files of a point to `uri`, within `deadline_s` whatever the store does.

    `uri` is the point's own address (`point_uri`). What is there with the same content is not sent again; the manifest is
    written last. Raises nothing for what a store does: `error` holds the cause, and a later push goes on from there.
    Raises UsageError for a bad `uri`.
    """
    uri = check_uri(uri)
    try:
        return within(deadline_s, lambda stop: _push(run_dir, uri, stop))
    except Exception as error:  # noqa: BLE001  # a copy that fails is told, and ends nothing
        return CopyOutcome(uri=uri, error=cause_of(error))


def pull(uri: str, run_dir: Path, deadline_s: float = DEADLINE_S) -> CopyOutcome:
    """What became of fetching a whole point into `run_dir`; where that already holds a result, nothing is fetched.

    Every file is checked against the manifest before any is put in place, result.json last. `error` is set where there is no
    manifest, where it names a file outside the point, or where a checksum differs; `run_dir` is then as it was.
    """
    uri = check_uri(uri)
    if (run_dir / RESULT).exists():
        return CopyOutcome(uri=uri, n_present=1)
    staging = run_dir.parent / f".{run_dir.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        staging.mkdir(parents=True)
        outcome = within(deadline_s, lambda stop: _pull(uri, staging, stop))
        _move_in(staging, run_dir)
    except Exception as error:  # noqa: BLE001  # as in push
        return CopyOutcome(uri=uri, error=cause_of(error))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return outcome


def finished_files(run_dir: Path) -> dict[str, StoredFile]:
    """Every file of a run directory by its relative name, with its checksum: no links, nothing hidden or temporary, no saved state."""
    found = {}
    for path in sorted(run_dir.rglob("*")):
        name = path.relative_to(run_dir).as_posix()
        is_passing = any(part.startswith(".") or part.endswith((".tmp", ".lock")) or part == STATES for part in name.split("/"))
        if path.is_file() and not is_passing and path.resolve() == run_dir.resolve() / name:
            found[check_name(name)] = StoredFile(sha256=sha256_of(path), size_bytes=path.stat().st_size)
    return found


def _push(run_dir: Path, uri: str, stop: threading.Event) -> CopyOutcome:
    store, root = open_store(uri)
    wanted = Manifest(schema_version=MANIFEST_VERSION, files=finished_files(run_dir))
    if tried(lambda: _read_manifest(store, root), stop) == wanted:
        return CopyOutcome(uri=uri, n_present=len(wanted.files))
    sent = [name for name, file in wanted.files.items() if _put(store, run_dir / name, f"{root}/{file.address(name)}", file, stop)]
    tried(lambda: write(store, f"{root}/{MANIFEST}", encode_text(wanted).encode()), stop)
    n_bytes = sum(wanted.files[name].size_bytes for name in sent)
    return CopyOutcome(uri=uri, n_copied=len(sent), n_present=len(wanted.files) - len(sent), copied_bytes=n_bytes)


def _put(store: Store, local: Path, path: str, file: StoredFile, stop: threading.Event) -> bool:
    if stop.is_set():
        raise TimeoutError("given up")
    return tried(lambda: put(store, local, path, file), stop)


def _pull(uri: str, staging: Path, stop: threading.Event) -> CopyOutcome:
    store, root = open_store(uri)
    manifest = tried(lambda: _read_manifest(store, root), stop)
    if manifest is None:
        raise UsageError(f"no {MANIFEST} there: the point was not copied to its end; measure it again")
    for name, file in manifest.files.items():
        _get(store, f"{root}/{file.address(name)}", staging / name, file, stop)
    n_bytes = sum(file.size_bytes for file in manifest.files.values())
    return CopyOutcome(uri=uri, n_copied=len(manifest.files), copied_bytes=n_bytes)


def _get(store: Store, path: str, local: Path, file: StoredFile, stop: threading.Event) -> None:
    local.parent.mkdir(parents=True, exist_ok=True)
    tried(lambda: get(store, path, local, file), stop)


def _points(uri: str) -> tuple[str, ...]:
    store, root = open_store(uri)
    try:
        names = [path.rstrip("/").rsplit("/", 1)[-1] for path in store.ls(root, detail=False)]
    except FileNotFoundError:
        return ()
    return tuple(sorted(name for name in names if is_segment(name) and store.exists(f"{root}/{name}/{MANIFEST}")))


def _read_manifest(store: Store, root: str) -> Manifest | None:
    """The manifest of a point, or None where there is none."""
    path = f"{root}/{MANIFEST}"
    try:
        size = store.info(path)["size"]
    except FileNotFoundError:
        return None
    if size > MAX_MANIFEST_BYTES:
        raise UsageError(f"{path} has {size} bytes, more than the {MAX_MANIFEST_BYTES} of any manifest; is it one?")
    return decode_text(Manifest, store.cat_file(path))


def _move_in(staging: Path, run_dir: Path) -> None:
    """Nothing; the files of one directory are in another, the result last: until then the point does not count as finished."""
    files = sorted((p for p in staging.rglob("*") if p.is_file()), key=lambda p: p.name == RESULT)
    for file in files:
        target = run_dir / file.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
