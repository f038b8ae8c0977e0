"""The wheel carries conf/ and runs where there is no checkout."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from bench.store.results import read_result
from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wheel_in_an_empty_environment_runs(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    command = [tmp_path / "empty" / "bin" / "bench", "run", "model=tiny", "device=cpu", "measure.steps=5", "out=kept"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "memphis_100k_h100" in done.stdout
    assert read_result(tmp_path / "kept").measurement.world_size >= 1
