"""Tables on a terminal, and a line of progress."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.masking import masked_text
from bench.report.tables import Table

PLAIN_WIDTH = 160  # columns where the output is no terminal
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
    sys.stderr.write(f"{masked_text(text)}\n")


def _rich(table: Table) -> RichTable:
    headed = any(table.header)
    drawn = RichTable(title=table.title, title_justify="left", title_style="bold", show_header=headed, show_lines=headed)
    for heading in table.header:
        drawn.add_column(Text(heading), overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn


class ProgressLine:
    """One line that changes on a terminal; a plain line every few seconds, and at every new phase, elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._told_at = -PLAIN_EVERY_S
        self._phase = ""

    def __call__(self, text: str) -> None:
        if os.environ.get(QUIET):
            return
        phase = text.split(":", maxsplit=1)[0]
        if self._is_terminal:
            self._stream.write(f"\r\033[K{text}")
        elif phase != self._phase or time.monotonic() - self._told_at >= PLAIN_EVERY_S:
            self._stream.write(f"{text}\n")
            self._told_at = time.monotonic()
        self._phase = phase
        self._stream.flush()

    def close(self) -> None:
        """Nothing; what is written next begins on a line of its own."""
        if self._is_terminal:
            self._stream.write("\r\033[K")
            self._stream.flush()


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
