"""What a saved state says of itself: every file with its checksum, the model, and a list of tensors that is read without trust.

The list of tensors (`.metadata`) is a pickle, because torch.distributed.checkpoint writes one. It is read only after its checksum
agreed, by an unpickler that knows a dozen names and no other, after a look at its opcodes. What remains: who can write into the
folder can write a manifest to suit, and then choose the numbers that are loaded; nothing else is called.
"""

import hashlib
import io
import json
import pickle
import pickletools
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata

from bench.facts.checkpoint import MANIFEST_VERSION
from bench.facts.run import RunSpec

MANIFEST = "manifest.json"
METADATA = ".metadata"
MOST_MANIFEST_BYTES = 2**26
_TORCH = "torch.distributed.checkpoint"
ALLOWED = {
    *((f"{_TORCH}.metadata", name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "TensorStorageMetadata")),
    *((f"{_TORCH}.metadata", name) for name in ("ChunkStorageMetadata", "_MEM_FORMAT_ENCODING")),
    (f"{_TORCH}.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    *((f"pathlib{module}", kind) for module in ("", "._local") for kind in ("PosixPath", "PurePosixPath")),
}
TENSOR_TYPES = {str(value).removeprefix("torch.") for value in vars(torch).values() if isinstance(value, torch.dtype)}


class Torn(Exception):  # never leaves bench.run.checkpoint
    """A saved state that cannot be trusted, and why."""


def manifest_of(folder: Path, spec: RunSpec, step: int) -> dict[str, Any]:
    """The manifest of a folder whose files are all there."""
    files = {file.name: {"sha256": checksum(file), "bytes": file.stat().st_size} for file in sorted(folder.iterdir())}
    return {"version": MANIFEST_VERSION, "step": step, **_what(spec), "files": files}


def _what(spec: RunSpec) -> dict[str, Any]:
    return {"model": plain_model(spec), "train": plain_training(spec), "plan": asdict(spec.plan)}


def plain_training(spec: RunSpec) -> dict[str, Any]:
    """What else makes the training what it is, as JSON has it."""
    train = spec.train
    told = {"learning_rate": train.learning_rate, "weight_decay": train.weight_decay, "seed": train.seed}
    return told | {"precision": train.precision.value, "global_batch_size": spec.batch.global_batch_size}


def plain_model(spec: RunSpec) -> dict[str, Any]:
    """The model as JSON has it, without what does not change a number."""
    told: dict[str, Any] = json.loads(json.dumps(asdict(spec.model)))
    return {name: value for name, value in told.items() if name not in ("name", "source")}


def checksum(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def verified(folder: Path) -> dict[str, Any]:
    """The manifest of a folder that holds exactly what it says. Raises Torn."""
    manifest = read_manifest(folder)
    for name, told in manifest["files"].items():
        file = folder / name
        try:
            size = file.stat().st_size
            if size != told["bytes"]:
                raise Torn(f"{name} has {size} bytes and should have {told['bytes']}")
            if checksum(file) != told["sha256"]:
                raise Torn(f"{name} does not have the checksum of its manifest")
        except OSError as error:
            raise Torn(f"{name} cannot be read ({error.strerror})") from None
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in a folder, every field of its kind. Raises Torn."""
    file = folder / MANIFEST
    try:
        if file.stat().st_size > MOST_MANIFEST_BYTES:
            raise Torn(f"{MANIFEST} has more than {MOST_MANIFEST_BYTES} bytes")
        manifest = json.loads(file.read_bytes())
    except OSError as error:
        raise Torn(f"{MANIFEST} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise Torn(f"{MANIFEST} is not JSON") from None
    if not _is_manifest(manifest):
        raise Torn(f"{MANIFEST} is not one of version {MANIFEST_VERSION}")
    return dict(manifest)


def _is_manifest(plain: Any) -> bool:
    if not isinstance(plain, dict) or plain.get("version") != MANIFEST_VERSION or not _is_count(plain.get("step")):
        return False
    if not all(isinstance(plain.get(name), dict) for name in ("model", "train", "plan", "files")):
        return False
    files = plain["files"]
    return METADATA in files and all(_is_file(name, told) for name, told in files.items())


def _is_file(name: str, told: Any) -> bool:
    """Whether it is a plain name with a checksum: nothing outside the folder is ever opened."""
    is_plain = name not in ("", ".", "..", MANIFEST) and "/" not in name and "\0" not in name and len(name) < 256
    return is_plain and isinstance(told, dict) and isinstance(told.get("sha256"), str) and _is_count(told.get("bytes"))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED or (module == "torch" and name in TENSOR_TYPES):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not among the names of a list of tensors")


def read_metadata(data: bytes, files: Mapping[str, Any]) -> Metadata:
    """The list of tensors that a pickle holds, all of which lie in `files`. Raises Torn."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            # the memo is an array: a large index would take that much memory
            if "PUT" in opcode.name and isinstance(argument, int) and argument > len(data):
                raise Torn(f"{METADATA} is not a list of tensors")
        metadata = _Reader(io.BytesIO(data)).load()
    except Torn:
        raise
    except Exception as error:  # noqa: BLE001  # a pickle of somebody else's making may raise anything
        raise Torn(f"{METADATA} cannot be read ({' '.join(str(error).split())[:120] or type(error).__name__})") from None
    if not _is_list_of_tensors(metadata, files):
        raise Torn(f"{METADATA} is not a list of tensors in these files")
    assert isinstance(metadata, Metadata)
    return metadata


def _is_list_of_tensors(metadata: Any, files: Mapping[str, Any]) -> bool:
    if not isinstance(metadata, Metadata):
        return False
    tensors, places = getattr(metadata, "state_dict_metadata", None), getattr(metadata, "storage_data", None)
    if not isinstance(tensors, dict) or not isinstance(places, dict):
        return False
    named = all(isinstance(name, str) and isinstance(one, TensorStorageMetadata) for name, one in tensors.items())
    return named and all(_is_place(index, place, files) for index, place in places.items())


def _is_place(index: Any, place: Any, files: Mapping[str, Any]) -> bool:
    name = getattr(place, "relative_path", None)
    return isinstance(index, MetadataIndex) and isinstance(place, _StorageInfo) and isinstance(name, str) and name in files


class VerifiedReader(FileSystemReader):
    """Torch's reader of files, its list of tensors read without trust. Torch reads the tensors themselves as weights only."""

    def __init__(self, folder: Path, files: Mapping[str, Any]) -> None:
        super().__init__(folder)
        self._folder, self._files = folder, files

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:  # noqa: ARG002
        """See FileSystemReader."""
        try:
            data = (self._folder / METADATA).read_bytes()
        except OSError as error:
            raise Torn(f"{METADATA} cannot be read ({error.strerror})") from None
        return read_metadata(data, self._files)
