"""Lines of progress: what a terminal shows, what anything else shows, and that their time left is what was still to be waited."""

import io
from contextlib import redirect_stderr

import pytest

from bench.facts.progress import TimeLeft, extrapolated
from bench.report import terminal
from bench.report.terminal import CLEAR, PLAIN_EVERY_S, Pace, ProgressLine, announce, cut, quiet, tell, tracked


class Terminal(io.StringIO):
    """A terminal of 80 columns."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise io.UnsupportedOperation


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only the test moves on."""
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def walk(clock: list[float], phase: str = "searching", each_s: float = 3.0) -> None:
    """Four things, each of which takes so long."""
    for _ in tracked(["a", "b", "c", "d"], phase):
        clock[0] += each_s


def test_what_is_left_is_as_long_as_the_others_took() -> None:
    # three of twelve took 30 s: ten each, nine to go
    assert extrapolated(30.0, 3, 12) == TimeLeft(expected_s=90.0)
    assert extrapolated(30.0, 0, 12) is None


def test_a_terminal_shows_every_item_with_the_time_left_and_ends_with_a_clear_line(clock: list[float]) -> None:
    with redirect_stderr(Terminal()) as screen:
        walk(clock)
    lines = screen.getvalue().split(CLEAR)
    assert lines[1:] == [
        "searching: 1 of 4, a",
        "searching: 2 of 4, b, about 9 s left",
        "searching: 3 of 4, c, about 6 s left",
        "searching: 4 of 4, d, about 3 s left",
        "",
    ]


def test_elsewhere_only_what_lasts_is_heard_of_and_only_now_and_then(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    walk(clock, each_s=0.1)
    assert capsys.readouterr().err == ""
    walk(clock, each_s=0.6 * PLAIN_EVERY_S)
    assert capsys.readouterr().err == "searching: 3 of 4, c, about 6 s left\n"


def test_the_line_is_cleared_where_the_work_fails(clock: list[float]) -> None:
    def fail() -> None:
        for item in tracked(["a", "b"], "searching"):
            clock[0] += 1
            raise ValueError(item)

    with redirect_stderr(Terminal()) as screen:
        with pytest.raises(ValueError, match="a"):
            fail()
        tell("bench: it failed")
    assert screen.getvalue().endswith(f"{CLEAR}bench: it failed\n")


def test_quiet_hears_of_no_item_and_no_round(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with quiet(True):
        walk(clock, each_s=60)
        announce("round 1, 1 of 4: plan=ddp")
    assert capsys.readouterr().err == ""
    announce("round 1, 2 of 4: plan=ddp", TimeLeft(expected_s=200))
    assert capsys.readouterr().err == "round 1, 2 of 4: plan=ddp, about 3 min left\n"


def test_a_line_longer_than_the_terminal_keeps_its_beginning_and_the_time_left() -> None:
    told = cut("round 2, 3 of 12: model=dense_20m plan=fsdp train.micro_batch_size=4, about 40 s left", 48)
    assert len(told) == 47
    assert told.startswith("round 2, 3 of 12")
    assert told.endswith("40 s left")


def test_a_pace_begins_with_itself(clock: list[float]) -> None:
    pace = Pace()
    clock[0] += 8
    assert pace.left(2, 3) == TimeLeft(expected_s=4.0)


def test_a_phase_is_told_at_once_on_a_pipe_and_then_every_few_seconds(clock: list[float]) -> None:
    pipe = io.StringIO()
    line = ProgressLine(pipe)
    for text in ("warm-up: 3 steps", "warm-up: 6 steps", "measuring: 10 steps"):
        line(text)
    clock[0] += PLAIN_EVERY_S
    line("measuring: 20 steps", TimeLeft(expected_s=12, most_s=40))
    assert pipe.getvalue().splitlines() == [
        "warm-up: 3 steps",
        "measuring: 10 steps",
        "measuring: 20 steps, about 12 s left, at most 40 s",
    ]
