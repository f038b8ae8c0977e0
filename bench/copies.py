"""Points in an object store: what is there is fetched first, what is measured is copied there, and nothing waits for it long."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.errors import StoreUnavailable
from bench.report.terminal import tell
from bench.store.attempts import STATUS
from bench.store.mirror import Mirror
from bench.store.remote import point_uri, points, pull
from bench.store.results import RESULT

BETWEEN_LAUNCHES_S = 15.0  # a copy takes a core for a moment: it is waited for, but not for long
AT_THE_END_S = 120.0
WHEN_STOPPED_S = 8.0  # of the notice

Copy = Callable[[str], None]


@contextmanager
def copies(results_uri: str | None, folder: Path, names: Sequence[str]) -> Iterator[Copy]:
    """What copies a point, by its name, from its directory in the folder; before that, points of these names are in the folder if
    the store has them.

    Raises UsageError for a bad URI, and StoreUnavailable (exit 75) where the store cannot be read and the folder holds no point either:
    what it may hold would be measured twice.
    """
    if results_uri is None:
        yield lambda _: None
        return
    mirror = Mirror(results_uri)
    _fetch(results_uri, folder, names)

    def copy(name: str) -> None:
        if (folder / name / STATUS).exists():
            mirror.push_later(folder / name, name)
            mirror.drain(BETWEEN_LAUNCHES_S)

    wait_s = WHEN_STOPPED_S
    try:
        yield copy
        wait_s = AT_THE_END_S
    finally:
        for outcome in mirror.drain(wait_s):
            if outcome.error:
                tell(f"results_uri: {outcome.uri}: {outcome.error}; the local files are whole, the same command copies them again")


def _fetch(results_uri: str, folder: Path, names: Sequence[str]) -> None:
    """Nothing; finished points that are not here yet are, and points that were cut short go on from where the store has them."""
    try:
        there = [name for name in points(results_uri) if name in names]
    except StoreUnavailable as error:
        if not any((folder / name).exists() for name in names):
            raise
        tell(f"{error}; going on with what is in {folder}")
        return
    for name in there:
        if not (folder / name / RESULT).exists():
            outcome = pull(point_uri(results_uri, name), folder / name)
            if outcome.error and not (folder / name).exists():
                raise StoreUnavailable(f"results_uri: {outcome.uri} cannot be fetched ({outcome.error}); run the same command again")
            tell(f"{name}: fetched from {outcome.uri}" if not outcome.error else f"results_uri: {outcome.uri}: {outcome.error}")
