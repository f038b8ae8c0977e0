"""How far the long verbs are, on a real terminal: the time left while they work, nothing of it afterwards, nothing with --quiet."""

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import SMALL
from tests.e2e.test_probe import PLAN, TARGET

VERBS = {
    "run": ("run", *SMALL, "measure.steps=40", "out=r"),
    "sweep": ("sweep", *SMALL[1:], "model=tiny", "plan=ddp,zero1", "measure.steps=6", "out=s"),
    "slice": ("slice", "device=cpu", *TARGET, *PLAN, "slice.repeat.budget_s=0.5", "out=l"),
    "probe": ("probe", "probe=quick", "device=cpu", "device.n_devices=1", "probe.repeat.budget_s=0.02", "cluster=oracle_24k_h100", "out=p"),
    "predict": ("predict", "out=d"),
    "plan": ("plan", "out=q"),
    "decide": ("decide", "experiment=rent_or_build", "out=e"),
}
SLOW_VERBS = {"backtest": ("backtest",), "fit-priors": ("fit-priors", "out=prior.yaml")}
QUICK = ("predict",)
LIMIT_S = 800  # of the slowest verb on a busy machine; alone it takes a minute
LEFT = re.compile(r"\w+: .*(about|at most) \d[\d.]* (s|min) left")


def on_a_terminal(*arguments: str, cwd: Path) -> str:
    """What `python -m bench` writes on a standard error that is a terminal."""
    controller, terminal = pty.openpty()
    seen = bytearray()

    def read() -> None:
        try:
            while piece := os.read(controller, 65536):
                seen.extend(piece)
        except OSError:  # the last writer has left
            return

    reader = threading.Thread(target=read)
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=terminal, stdin=subprocess.DEVNULL
    ) as process:
        os.close(terminal)
        reader.start()
        try:
            process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    reader.join(10)
    os.close(controller)
    text = seen.decode()
    assert process.returncode == 0, text
    return text


def lasting(text: str) -> list[str]:
    """The lines that are still there at the end."""
    return [line.split("\r\033[K")[-1] for line in text.replace("\r\n", "\n").split("\n")]


@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize(
    "arguments",
    [v if name in QUICK else pytest.param(v, marks=pytest.mark.slow) for name, v in (VERBS | SLOW_VERBS).items()],
    ids=[*VERBS, *SLOW_VERBS],
)
def test_a_terminal_shows_the_time_left_and_keeps_none_of_it(arguments: tuple[str, ...], tmp_path: Path) -> None:
    shown = on_a_terminal(*arguments, cwd=tmp_path)
    assert LEFT.search(shown), shown
    if arguments[0] != "sweep":  # whose rounds stay as headings
        assert not any(LEFT.search(line) for line in lasting(shown))


@pytest.mark.slow
def test_with_quiet_a_terminal_is_told_where_the_result_is_and_nothing_else(tmp_path: Path) -> None:
    shown = on_a_terminal("run", *SMALL, "measure.steps=10", "out=r", "--quiet", cwd=tmp_path)
    assert [line for line in lasting(shown) if line] == ["kept in r"]
