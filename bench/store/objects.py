"""Single objects in a store: opened, written whole, read back and checked; tried again a few times, never for ever."""

import hashlib
import random
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import fsspec

from bench.errors import BenchError, UsageError
from bench.facts.mirror import StoredFile
from bench.masking import masked_text

T = TypeVar("T")

LIBRARIES = {"s3": "s3fs", "gs": "gcsfs"}  # what reads a scheme; the extra that brings it is named as the scheme
N_TRIES = 4
PAUSE_S = 0.5  # before the second try; doubles each time, times a random factor between 0.5 and 1.5
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
CHUNK_BYTES = 2**20


class Store(Protocol):
    """The part of an fsspec file system that is used here."""

    def info(self, path: str) -> dict[str, Any]:
        """Size and kind of one object."""

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """Content of one object."""

    def pipe_file(self, path: str, value: bytes) -> object:
        """Nothing; the object holds the bytes."""

    def put_file(self, lpath: str, rpath: str) -> object:
        """Nothing; the object holds what the file holds."""

    def get_file(self, rpath: str, lpath: str) -> object:
        """Nothing; the file holds what the object holds."""

    def ls(self, path: str, detail: bool) -> list[str]:
        """Names below a folder."""

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""


def require_library(scheme: str) -> None:
    """Nothing; raises UsageError where the library that reads the scheme is not installed."""
    library = LIBRARIES.get(scheme)
    if library and util.find_spec(library) is None:
        raise UsageError(f"results_uri: {scheme}:// needs {library}, which is not installed; pip install 'proxybench[{scheme}]'")


def open_store(uri: str) -> tuple[Store, str]:
    """The store of a checked URI and the path in it; a new connection each time, since the environment may have changed."""
    scheme = uri.split("://", maxsplit=1)[0]
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme == "s3":
        retries = {"max_attempts": 1, "mode": "standard"}  # tried again here, once per failure and not once per layer
        options["config_kwargs"] = {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S, "retries": retries}
    store, path = fsspec.core.url_to_fs(uri, **options)
    if scheme == "s3":
        store.retries = 1
    return cast(Store, store), path.rstrip("/")


def within(deadline_s: float, act: Callable[[threading.Event], T]) -> T:
    """What `act` returns or raises; TimeoutError after `deadline_s`, when its event is set and it is left behind as a daemon."""
    stop, results, errors = threading.Event(), list[T](), list[BaseException]()

    def run() -> None:
        try:
            results.append(act(stop))
        except BaseException as error:  # noqa: BLE001  # raised again by who waits
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="results-copy")
    thread.start()
    thread.join(deadline_s)
    if thread.is_alive():
        stop.set()
        raise TimeoutError(f"not finished within {deadline_s:g} s")
    if errors:
        raise errors[0]
    return results[0]


def tried(act: Callable[[], T], stop: threading.Event) -> T:
    """What `act` returns within a few tries; its last error otherwise. What another try cannot help is raised at once."""
    for k in range(N_TRIES):
        try:
            return act()
        except (BenchError, FileNotFoundError, PermissionError, ImportError):
            raise
        except Exception:  # stores raise whatever their libraries do
            if k + 1 == N_TRIES or stop.wait(PAUSE_S * 2**k * random.uniform(0.5, 1.5)):
                raise
    raise AssertionError("unreachable")


def put(store: Store, local: Path, path: str, file: StoredFile) -> bool:
    """Whether the file had to be sent: an object of its content and size may be there already."""
    try:
        if store.info(path)["size"] == file.size_bytes:
            return False
    except FileNotFoundError:
        pass
    with _passing(store, path) as target:
        store.put_file(str(local), target)
    return True


def write(store: Store, path: str, content: bytes) -> None:
    """Nothing; the object holds the bytes, or what it held before."""
    with _passing(store, path) as target:
        store.pipe_file(target, content)


def get(store: Store, path: str, local: Path, file: StoredFile) -> None:
    """Nothing; the local file is the one of the manifest. Raises UsageError where the store holds something else."""
    if (size := store.info(path)["size"]) != file.size_bytes:
        raise UsageError(
            f"{path} has {size} bytes and not the {file.size_bytes} of its manifest; copy the point again from where it was measured"
        )
    store.get_file(path, str(local))
    if sha256_of(local) != file.sha256:
        raise UsageError(f"{path} has another checksum than in its manifest; copy the point again from where it was measured")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def cause_of(error: BaseException) -> str:
    """One masked line that says what a store's library did not manage."""
    text = " ".join(str(error).split()) or type(error).__name__
    return masked_text(text if isinstance(error, BenchError | TimeoutError) else f"{type(error).__name__}: {text}")[:300]


@contextmanager
def _passing(store: Store, path: str) -> Iterator[str]:
    """Where to write what is to be at `path` when it is whole: there itself in an object store, which shows no half object.

    Buckets are never made here: a misspelt one is an error.
    """
    if "file" not in (getattr(store, "protocol", "") or ()):
        yield path
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    passing = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield str(passing)
        passing.replace(target)
    finally:
        passing.unlink(missing_ok=True)
