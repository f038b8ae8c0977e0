"""Tables on a terminal, and a line of progress."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO, TypeVar

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.facts.progress import TimeLeft, extrapolated
from bench.masking import masked_text
from bench.report.format import time_left
from bench.report.tables import Table

T = TypeVar("T")

CLEAR = "\r\033[K"
PLAIN_WIDTH = 160  # columns where the output is no terminal
USUAL_COLUMNS = 80  # of a terminal that does not tell
PLAIN_EVERY_S = 5.0
QUIET = "PROXYBENCH_QUIET"  # a variable of the environment, so that ranks hear of it


def print_tables(*tables: Table) -> None:
    """Nothing; the tables are on the standard output."""
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    for table in tables:
        console.print(_rich(table))
        for note in table.notes:
            console.print(Text(note, style="yellow" if note.startswith(("warning", "not valid")) else "dim"))
        console.print()


def tell(text: str) -> None:
    """Nothing; the line is on the standard error, secrets masked."""
    sys.stderr.write(f"{CLEAR if sys.stderr.isatty() else ''}{masked_text(text)}\n")


def announce(text: str, left: TimeLeft | None = None) -> None:
    """Nothing; a line of progress that stays is on the standard error, unless that is to be quiet."""
    if not os.environ.get(QUIET):
        tell(_with_time(text, left))


def _with_time(text: str, left: TimeLeft | None) -> str:
    return ", ".join(filter(None, (text, time_left(left) if left else "")))


def _rich(table: Table) -> RichTable:
    headed = any(table.header)
    drawn = RichTable(title=table.title, title_justify="left", title_style="bold", show_header=headed, show_lines=headed)
    for heading in table.header:
        drawn.add_column(Text(heading), overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn


class ProgressLine:
    """One line that changes on a terminal; a plain line every few seconds, and at every new phase, elsewhere.

    `phase`: one that needs no telling; elsewhere than on a terminal it is heard of only if it lasts.
    """

    def __init__(self, stream: TextIO, phase: str = "") -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._told_at = time.monotonic() if phase else -PLAIN_EVERY_S
        self._phase = phase

    def __call__(self, text: str, left: TimeLeft | None = None, /) -> None:
        if os.environ.get(QUIET):
            return
        phase = text.split(":", maxsplit=1)[0]
        text = _with_time(text, left)
        if self._is_terminal:
            self._stream.write(f"{CLEAR}{cut(text, _n_columns(self._stream))}")
        elif phase != self._phase or time.monotonic() - self._told_at >= PLAIN_EVERY_S:
            self._stream.write(f"{text}\n")
            self._told_at = time.monotonic()
        self._phase = phase
        self._stream.flush()

    def close(self) -> None:
        """Nothing; what is written next begins on a line of its own."""
        if self._is_terminal:
            self._stream.write(CLEAR)
            self._stream.flush()


def _n_columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or USUAL_COLUMNS
    except OSError:
        return USUAL_COLUMNS


def cut(text: str, n_columns: int) -> str:
    """The text where it fits one line of a terminal, without its middle where it does not: the time left stands at its end.

    >>> cut("measuring: 30 steps, 40 s left", 20)
    'measurin... s left'
    """
    room = max(n_columns - 1, 20)  # a full line would wrap
    return text if len(text) <= room else f"{text[: (room - 3) // 2]}...{text[-(room - 3) // 2 :]}"


class Pace:
    """How long the rest takes of many things that began with this."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def left(self, n_done: int, n: int) -> TimeLeft | None:
        """As `extrapolated`, from now."""
        return extrapolated(time.monotonic() - self._begun, n_done, n)


def tracked(items: Sequence[T], phase: str, name: Callable[[T], str] = str) -> Iterator[T]:
    """The items, and on the standard error how far whoever takes them is, and the time left if the others take as long."""
    line, pace = ProgressLine(sys.stderr, phase), Pace()
    try:
        for i, item in enumerate(items):
            line(f"{phase}: {i + 1} of {len(items)}, {name(item)}", pace.left(i, len(items)))
            yield item
    finally:
        line.close()


@contextmanager
def quiet(is_asked: bool) -> Iterator[None]:
    """No progress is shown meanwhile, by this process or those that it starts, where that is asked for."""
    before = os.environ.get(QUIET)
    if is_asked:
        os.environ[QUIET] = "1"
    try:
        yield
    finally:
        if is_asked and before is None:
            del os.environ[QUIET]


def terminal_progress() -> ProgressLine:
    """Progress on the standard error."""
    return ProgressLine(sys.stderr)
