"""Saving the state of a training run, and going on from it: on the same ranks bit by bit, on others as far as torch can deal it out anew.

`save` writes a new folder beside the old ones and makes it count with one rename, so that a kill at any moment leaves the state
before whole. `load` takes the newest that is whole and says which it passed over. All ranks call both, and share the folder.
"""

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from bench.errors import BenchError, UsageError
from bench.facts.checkpoint import CheckpointRead, CheckpointWrite
from bench.run.manifest import MANIFEST, Torn, VerifiedReader, manifest_of, plain_model, plain_training, verified
from bench.run.state import state_of
from bench.run.train import Trainer
from bench.run.whole_files import sync_folder, write_synced

LATEST = "latest"
KEEP = 2  # states; the second is there for a first that turns out torn
MAY_CHANGE = ("precision", "global_batch_size")  # what `auto` may find otherwise on another machine: the training goes on, and it is said
T = TypeVar("T")


def save(trainer: Trainer, folder: Path, step: int) -> CheckpointWrite:
    """What writing the state after `step` steps took. Raises BenchError on every rank where it could not be kept."""
    begun = time.perf_counter()
    final, temporary = folder / f"step-{step}", folder / f"step-{step}.tmp"
    try:
        _on_first(lambda: _make_anew(temporary), step)
        _write(trainer, temporary, step)
        size = _on_first(lambda: _finish(trainer, temporary, final, step), step)
    except BenchError:
        _from_first(lambda: shutil.rmtree(temporary, ignore_errors=True))  # half a state, on a disk that may be full of it
        raise
    return CheckpointWrite(step=step, path=str(final), time_s=time.perf_counter() - begun, size_bytes=size)


def _write(trainer: Trainer, temporary: Path, step: int) -> None:
    try:
        with _quiet():
            state_dict_saver.save(state_of(trainer), storage_writer=FileSystemWriter(temporary), no_dist=not dist.is_initialized())
    except (CheckpointException, OSError, RuntimeError) as error:
        raise _not_kept(step, error) from None


def load(trainer: Trainer, folder: Path) -> CheckpointRead | None:
    """What was loaded into the trainer: the newest state that is whole; None where nothing was ever saved.

    Raises UsageError for a state of another model or training, or of experts that are dealt out otherwise, BenchError where all are torn.
    """
    begun = time.perf_counter()
    names: list[str] = _from_first(lambda: _newest_first(folder))
    passed_over: list[str] = []
    for name in names:
        try:
            manifest = _agreed(partial(verified, folder / name))
            _refuse_other(plain_model(trainer.spec), manifest["model"], f"{folder / name} is of a model", "the same model")
            changed = _changed(trainer, manifest, folder / name)
            _read(trainer, folder / name, manifest)
        except Torn as reason:
            passed_over.append(f"{name} is torn: {reason}")
            continue
        trainer.go_to(manifest["step"])
        taken, torn = time.perf_counter() - begun, tuple(passed_over)
        return CheckpointRead(step=manifest["step"], path=str(folder / name), time_s=taken, passed_over=torn, changed=changed)
    if passed_over:
        raise BenchError(f"checkpoint: {folder} holds no whole state ({'; '.join(passed_over)}); remove it to begin anew")
    return None


def _read(trainer: Trainer, path: Path, manifest: dict[str, Any]) -> None:
    """Nothing; the trainer holds the state. Raises Torn, the same on every rank."""
    reader, state = VerifiedReader(path, manifest["files"]), state_of(trainer)
    metadata = _agreed(reader.read_metadata, everywhere=True)
    lacking = sorted(set(state) - set(metadata.state_dict_metadata))
    found = [names for names in _gathered(lacking) if names]
    if found:
        raise UsageError(
            f"checkpoint: {path} has no {found[0][0]}; experts and stages can be dealt out anew over other ranks only as they were "
            "split: use its expert_parallel_size and tensor_parallel_size"
        )
    try:
        with _quiet():
            state_dict_loader.load(state, storage_reader=reader, no_dist=not dist.is_initialized())
    except (CheckpointException, RuntimeError, ValueError, OSError) as error:
        raise Torn(f"it cannot be loaded ({_first_line(error)})") from None


def _refuse_other(own: dict[str, Any], kept: dict[str, Any], what: str, same: str) -> None:
    for name in sorted(set(own) | set(kept)):
        if own.get(name) != kept.get(name):
            other = f"{name} {kept.get(name)}, this one has {own.get(name)}"
            raise UsageError(f"checkpoint: {what} with {other}; give {same} or another out")


def _changed(trainer: Trainer, manifest: dict[str, Any], path: Path) -> tuple[str, ...]:
    """What may change and has, each in a phrase. Raises UsageError where something else of the training has."""
    own, kept = plain_training(trainer.spec), dict(manifest["train"])
    told = tuple(f"with {name} {own[name]}, saved with {kept.get(name)}" for name in MAY_CHANGE if own[name] != kept.get(name))
    fixed = [{name: value for name, value in one.items() if name not in MAY_CHANGE} for one in (own, kept)]
    _refuse_other(fixed[0], fixed[1], f"{path} is of a training", "the same")
    return told


def _make_anew(temporary: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)


def _finish(trainer: Trainer, temporary: Path, final: Path, step: int) -> int:
    """Bytes of the state, which counts from here on."""
    manifest = manifest_of(temporary, trainer.spec, step)
    write_synced(temporary / MANIFEST, manifest)
    sync_folder(temporary)
    if final.exists():  # torn, or the same steps once more
        shutil.rmtree(final)
    temporary.rename(final)
    sync_folder(final.parent)
    pointer = final.parent / f".{LATEST}.tmp"
    write_synced(pointer, final.name)
    os.replace(pointer, final.parent / LATEST)  # noqa: PTH105  # the name that POSIX gives to what must not be torn
    sync_folder(final.parent)
    for old in sorted(_steps(final.parent), reverse=True)[KEEP:]:
        shutil.rmtree(final.parent / f"step-{old}", ignore_errors=True)
    return sum(int(told["bytes"]) for told in manifest["files"].values())


def _steps(folder: Path) -> list[int]:
    names = (entry.name.removeprefix("step-") for entry in folder.glob("step-*"))
    return [int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 19]


def _newest_first(folder: Path) -> list[str]:
    """Names of the states, the one pointed to first."""
    names = [f"step-{step}" for step in sorted(_steps(folder), reverse=True)]
    try:
        pointed = (folder / LATEST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        pointed = ""
    return sorted(names, key=lambda name: name != pointed)


def _on_first(act: Callable[[], T], step: int) -> T:
    """What rank 0's act returned, on every rank. Raises BenchError on every rank where it failed."""

    def tried() -> T | OSError:
        try:
            return act()
        except OSError as error:
            return error

    out = _from_first(tried)
    if isinstance(out, OSError):
        raise _not_kept(step, out)
    return out


def _from_first(act: Callable[[], T]) -> T:
    if not dist.is_initialized():
        return act()
    box = [act() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(box, src=0)
    return cast(T, box[0])


def _agreed(act: Callable[[], T], everywhere: bool = False) -> T:
    """What the act returned, of rank 0 or of every rank for itself. Raises Torn on all where it did on any."""

    def tried() -> T | Torn:
        try:
            return act()
        except Torn as reason:
            return reason

    out = tried() if everywhere else _from_first(tried)
    for reason in _gathered(out if isinstance(out, Torn) else None):
        if reason is not None:
            raise reason
    assert not isinstance(out, Torn)
    return out


def _gathered(own: T) -> list[T]:
    if not dist.is_initialized():
        return [own]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    return everyone


def _not_kept(step: int, error: BaseException) -> BenchError:
    return BenchError(f"checkpoint: the state after step {step} was not kept ({_first_line(error)}); the one before is untouched")


def _first_line(error: BaseException) -> str:
    if isinstance(error, CheckpointException) and error.failures:
        error = next((inner[0] for inner in error.failures.values()), error)
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch warns of a process alone, and of parts of its own that it renames."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
