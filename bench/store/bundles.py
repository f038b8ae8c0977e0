"""A run directory as one archive: the same bytes for the same files, secrets masked."""

import gzip
import io
import os
import tarfile
from pathlib import Path

from bench.errors import UsageError
from bench.facts.checkpoint import STATES
from bench.masking import masked_text
from bench.store.attempts import LOCK

LEFT_OUT = (".tmp", LOCK)  # ends of the names of files that are of use only while a run goes on
LEFT_OUT_PREFIX = ".writable-"


def write_bundle(run_dir: Path, file: Path) -> int:
    """Number of files in the archive. Raises UsageError where it is there already, or cannot be written."""
    files = bundled_files(run_dir)
    if not files:
        raise UsageError(f"bundle: {run_dir} holds no file; give a run directory")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as target:
            target.write(archive(run_dir, files))
            os.fsync(target.fileno())
    except FileExistsError:
        raise UsageError(f"out: {file} is there already, and is not overwritten; choose another name") from None
    except OSError as error:
        file.unlink(missing_ok=True)
        raise UsageError(f"out: {file} cannot be written ({error.strerror}); choose a file that can") from None
    return len(files)


def bundled_files(run_dir: Path) -> list[Path]:
    """Every plain file of the run but saved states, in the order of names; no links, which may lead out of it."""
    plain = [path for path in run_dir.rglob("*") if path.is_file() and not path.is_symlink()]
    kept = [path for path in plain if not path.name.endswith(LEFT_OUT) and not path.name.startswith(LEFT_OUT_PREFIX)]
    kept = [path for path in kept if STATES not in path.relative_to(run_dir).parts]
    return sorted(kept, key=lambda path: path.relative_to(run_dir).as_posix())


def archive(run_dir: Path, files: list[Path]) -> bytes:
    """A gzipped tar archive, without times and owners."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as squeezed, tarfile.open(fileobj=squeezed, mode="w|") as tar:
        for path in files:
            content = shareable(path.read_bytes())
            entry = tarfile.TarInfo(f"{run_dir.resolve().name}/{path.relative_to(run_dir).as_posix()}")
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def shareable(content: bytes) -> bytes:
    """The content with secrets masked; as it is where it is no text."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return content
    return masked_text(text).encode("utf-8")
