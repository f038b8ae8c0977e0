"""What every door is held to: an expected error of one line or none, in time, and nothing written where nothing should be."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError

LONGEST_S = 20.0  # of one input, on a machine that others use too
Door = Callable[[Callable[[], Any], str], bool]
_watching: list[list[str]] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or event not in ("open", "os.mkdir", "os.rename", "os.remove"):
        return
    path, flags = arguments[0], arguments[2] if event == "open" else os.O_WRONLY
    if isinstance(path, str | bytes | os.PathLike) and isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        _watching[-1].append(os.fsdecode(path))


sys.addaudithook(_note)


def is_let_in(refusal: str, told: str) -> bool:
    """False, for a refusal of exactly one line."""
    assert len(refusal.splitlines()) == 1, (told, refusal)
    return False


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """Calls something with an odd input; whether it was let in. Fails for anything but a BenchError of one line."""
    monkeypatch.chdir(tmp_path)
    written: list[str] = []
    _watching.append(written)

    def knock(act: Callable[[], Any], told: str) -> bool:
        begun = time.perf_counter()
        try:
            act()
        except BenchError as error:
            return is_let_in(str(error), told)
        except Exception as error:
            raise AssertionError(f"{told}: {type(error).__name__}: {str(error)[:300]}") from error
        finally:
            assert time.perf_counter() - begun < LONGEST_S, told
        return True

    yield knock
    _watching.pop()
    outside = [path for path in written if not Path(path).resolve().is_relative_to(tmp_path.resolve()) and not path.startswith("/dev/")]
    assert [path for path in outside if "__pycache__" not in path] == []
