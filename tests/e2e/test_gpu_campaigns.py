"""The campaigns of scripts/gpu, on a CPU at small sizes: each one command that ends with its table and leaves small files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.config.compose import compose
from bench.store.profiles import read_profile, read_slice

ROOT = Path(__file__).parents[2]
CAMPAIGNS = ROOT / "scripts" / "gpu"
MOST_BYTES = 16 * 2**20  # of a file that is carried back
ON_CPU = ("device=cpu", "device.n_devices=1")


def campaign(name: str, out: Path, *arguments: str, **environment: str) -> str:
    """What the campaign prints last, on the standard output."""
    env = os.environ | {"PYTHON": sys.executable, "MODEL": "tiny", "SETTLE_S": "16", "LIMIT_S": "240"} | environment
    done = subprocess.run([str(CAMPAIGNS / name), str(out), *arguments], capture_output=True, text=True, timeout=290, env=env, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert all(file.stat().st_size < MOST_BYTES for file in out.rglob("*") if file.is_file())
    return done.stdout


def test_a_campaign_without_a_directory_says_what_to_give() -> None:
    done = subprocess.run([str(CAMPAIGNS / "ladder")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "ladder: no directory given; scripts/gpu/ladder OUT [override ...]\n")


def test_every_point_of_the_ladder_composes() -> None:
    lines = (CAMPAIGNS / "ladder.yaml").read_text().splitlines()
    points = [line.removeprefix("- [").removesuffix("]").split(", ") for line in lines if line.startswith("- [")]
    assert len(points) == 10
    for point in points:
        compose(point)


@pytest.mark.slow
def test_a_profile_is_left_and_says_what_it_tells(tmp_path: Path) -> None:
    small = ("probe=quick", "probe.matmul_sizes=[64]", "probe.attention_seq_lens=[64]", "probe.repeat.budget_s=0.01")
    told = campaign("profile", tmp_path / "p", *ON_CPU, *small)
    assert read_profile(tmp_path / "p" / "grok").probes
    assert read_profile(tmp_path / "p" / "llama3_405b").target == "llama3_405b"
    assert "memphis_100k_h100" in told


@pytest.mark.slow
def test_slices_are_left_and_a_second_call_measures_nothing_again(tmp_path: Path) -> None:
    names = ("target.model.n_heads=8", "target.model.n_kv_heads=8", "target.model.head_dim=16", "target.model.vocab_size=512")
    small = (*ON_CPU, "slice.repeat.budget_s=0.01", "target.model.d_model=128", "target.model.seq_len=64", *names)
    told = campaign("slices", tmp_path, *small)
    assert told.count("# Slice of") == 5
    before = {name: read_slice(tmp_path / name) for name in ("llama3_8b", "grok1_314b")}
    campaign("slices", tmp_path, *small)
    assert before == {name: read_slice(tmp_path / name) for name in before}


@pytest.mark.slow
def test_faults_end_as_expected(tmp_path: Path) -> None:
    rows = campaign("faults", tmp_path, *ON_CPU).splitlines()
    assert len(rows) == 2  # on a CPU memory is left alone
    assert all(row.endswith("as-expected") for row in rows)


@pytest.mark.slow
def test_peers_print_a_row_for_each(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    small = ("--model", "tiny", "--rounds", "2", "--mode", "eager", "--precision", "fp32", "--batch", "1")
    told = campaign("peers", tmp_path, *small)
    assert [line.split()[2] for line in told.splitlines() if line.startswith("fp32")] == [
        "proxybench",
        "transformers",
        "Llama",
        "nanoGPT-like",
    ]


@pytest.mark.slow
def test_wheels_hold_what_torch_does_not_bring(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(CAMPAIGNS / "wheels"), str(tmp_path)], check=True, timeout=280)
    names = {wheel.name.split("-")[0].lower() for wheel in tmp_path.glob("*.whl")}
    assert {"hydra_core", "omegaconf", "antlr4_python3_runtime", "pydantic", "pydantic_core"} <= names
    assert "torch" not in names
    assert sum(wheel.stat().st_size for wheel in tmp_path.glob("*.whl")) < 64 * 2**20


@pytest.mark.slow
def test_a_machine_without_a_network_installs_what_it_lacks(tmp_path: Path) -> None:
    """A bare Python that has torch and nothing of ours, as on an image for GPUs: the campaign brings the rest."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    bare = tmp_path / "checkout"
    shutil.copytree(ROOT, bare, ignore=shutil.ignore_patterns(".venv", ".git", "runs", "*_cache", ".hypothesis"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wheels = [sys.executable, str(CAMPAIGNS / "wheels"), str(bare / "scripts" / "gpu" / "carried"), f"--python={version}"]
    subprocess.run(wheels, check=True, timeout=280)
    here = next(path for path in sys.path if path.endswith("site-packages"))
    site = next((tmp_path / "venv" / "lib").glob("*/site-packages"))
    ours = ("hydra", "omegaconf", "antlr4", "pydantic", "rich", "accelerate", "proxybench", "__editable__")
    for path in Path(here).iterdir():  # what the image has: everything but what we bring
        if not path.name.lower().startswith((*ours, "pip", "setuptools")) and not (site / path.name).exists():
            (site / path.name).symlink_to(path)
    env = os.environ | {"PYTHON": str(python), "LIMIT_S": "200"}
    command = ["scripts/gpu/ladder", "out", *ON_CPU, "sweep.points=null", "model=tiny", "measure.steps=2"]
    done = subprocess.run(command, cwd=bare, capture_output=True, text=True, timeout=280, env=env, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "1 of 1 points measured" in done.stdout
