"""A run directory as a store far away holds it: which files, whether whole, and what became of copying it."""

import re

from bench.errors import InvalidFact
from bench.facts.figure import fact, require

MANIFEST_VERSION = 1
SEGMENT = re.compile(r"[A-Za-z0-9_.,=+-]{1,200}")  # one folder or file name: nothing that a shell, a URL or a file system reads otherwise
SCHEMES = ("s3", "gs", "file", "memory")
BUCKETED = ("s3", "gs")
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
SHA256 = re.compile(r"[0-9a-f]{64}")


def is_segment(text: str) -> bool:
    """Whether a text may be one folder or file name."""
    return bool(SEGMENT.fullmatch(text) and text.strip("."))


def check_name(name: str) -> str:
    """The name itself: a relative path of plain segments. Raises InvalidFact for anything that could lead out of its folder."""
    if not all(map(is_segment, name.split("/"))):
        raise InvalidFact(f"name {name[:80]!r} is no relative path of letters, digits and _.,=+-; rename it, without '..' or a leading '/'")
    return name


def check_uri(uri: str) -> str:
    """The URI without a slash at its end. Raises InvalidFact for other schemes, credentials, queries and doubtful names."""
    scheme, _, rest = uri.partition("://")
    require(scheme in SCHEMES, f"results_uri: scheme {scheme[:20]!r} is none of {', '.join(f'{one}://' for one in SCHEMES)}")
    require("@" not in rest, f"results_uri: {scheme}://***@... carries credentials; leave them out and set the store's own variables")
    require(not re.search(r"[?#]", rest), f"results_uri: {scheme}://{re.split('[?#]', rest)[0]} has a query; give bucket and folder alone")
    path = rest.rstrip("/")
    if scheme == "file":
        require(path.startswith("/"), f"results_uri: {uri[:80]!r} is not absolute; use file:///some/dir")
        path = path[1:]
    bucket, *_ = path.split("/")
    is_bucket = scheme not in BUCKETED or BUCKET.fullmatch(bucket)
    require(bool(is_bucket), f"results_uri: bucket {bucket[:70]!r} is not 3 to 63 of a-z 0-9 . _ -; use {scheme}://bucket/folder")
    plain = all(map(is_segment, path.split("/")))
    require(plain, f"results_uri: {uri[:80]!r} has an empty, '..' or unusual segment; use letters, digits and _.,=+-")
    return uri.rstrip("/")


@fact
class StoredFile:
    """One file of a point and how to tell that it is whole."""

    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        require(bool(SHA256.fullmatch(self.sha256)), f"sha256 {self.sha256[:80]!r} is not 64 hexadecimal digits")
        require(self.size_bytes >= 0, f"size_bytes {self.size_bytes} must not be negative")

    def address(self, name: str) -> str:
        """Where it lies below its point: another content has another address, so nothing is ever written over."""
        return f"{self.sha256[:16]}/{name}"


@fact
class Manifest:
    """manifest.json, written after every file that it names: a point without it is not whole."""

    schema_version: int
    files: dict[str, StoredFile]

    def __post_init__(self) -> None:
        require(
            self.schema_version == MANIFEST_VERSION, f"schema_version {self.schema_version} is not {MANIFEST_VERSION}; use another bench"
        )
        for name in self.files:
            check_name(name)


@fact
class CopyOutcome:
    """What became of copying one point to or from a store; never an exception, since no copy may end a measurement."""

    uri: str
    n_copied: int = 0
    n_present: int = 0  # were there already, with the same content
    copied_bytes: int = 0
    error: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether both sides now hold the same files."""
        return self.error is None
