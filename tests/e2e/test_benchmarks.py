"""The scripts under benchmarks/ run and print their figure."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def output(script: str, *arguments: str) -> str:
    """What the script prints."""
    command = [sys.executable, f"benchmarks/{script}", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=280).stdout


def test_overhead_prints_a_ratio_near_one() -> None:
    words = output("overhead.py", "model=tiny").split()
    assert 0.5 < float(words[-1]) < 2.0


def test_matmul_fraction_prints_a_fraction() -> None:
    words = output("matmul_fraction.py", "model=tiny").split()
    assert 0.0 < float(words[-1]) < 1.0


def test_peers_prints_a_row_for_each_model() -> None:
    pytest.importorskip("transformers")
    shown = output("peers/compare.py", "--model", "tiny", "--rounds", "2", "--mode", "eager", "--precision", "fp32")
    rows = [line for line in shown.splitlines() if line.startswith("fp32")]
    assert len(rows) == 3
    parameters = [float(row.split()[-3]) for row in rows]
    assert max(parameters) < 1.05 * min(parameters)


def test_repeating_a_measurement_finds_what_its_interval_says() -> None:
    words = output("repeatability.py", "tries=1").split()
    assert words[-3:] == ["1", "of", "1"], words
