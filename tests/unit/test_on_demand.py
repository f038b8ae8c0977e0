"""Modules that are imported when they are asked for: whole, whoever interrupts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.on_demand import on_demand

MODULE = """
import os, signal
{before}
os.kill(os.getpid(), signal.{number})
WHOLE = "whole"
"""
SCRIPT = """
import signal, sys

class Stopped(Exception):
    pass

def stop(number, _):
    raise Stopped

for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, stop)
from bench.on_demand import on_demand
try:
    on_demand("interrupted", "WHOLE")
except Stopped:
    print("stopped", sys.modules["interrupted"].WHOLE)
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_who_asks_to_stop_is_heard_after_the_import(tmp_path: Path, number: str) -> None:
    (tmp_path / "interrupted.py").write_text(MODULE.format(before="", number=number))
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "stopped whole\n", done.stderr


def test_signals_are_heard_again_afterwards() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert on_demand("json", "loads")("1") == 1
    with pytest.raises(ImportError):
        on_demand("bench.nothing_of_that_name", "x")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize("after_s", [0.2, 0.5, 0.8, 1.1, 1.5, 2.0])
def test_a_verb_that_is_stopped_while_it_loads_says_so_in_one_line(tmp_path: Path, after_s: float) -> None:
    command = [sys.executable, "-m", "bench", "run", "model=tiny", "device=cpu", "measure.steps=100000", "page=false", "out=kept"]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ)
    time.sleep(after_s)
    running.send_signal(signal.SIGTERM)
    _, told = running.communicate(timeout=60)
    # before Python has come to the first line of ours nobody listens
    assert running.returncode == 75 or (running.returncode == -signal.SIGTERM and not told), told
    assert "Traceback" not in told
