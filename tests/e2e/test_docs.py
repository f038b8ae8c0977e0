"""Every command in the README and in docs/, run as it stands; tests/documentation.py has what cannot run here, and why."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.store.published import shipped_rows
from tests.conftest import SMALL, run_bench
from tests.documentation import MAY_END_OTHERWISE, PAGES, ROOT, Snippet, snippets
from tests.e2e.test_predict import written

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
COMMANDS = {"bench": "-m bench", "torchrun": "-m torch.distributed.run", "python": ""}


@pytest.fixture(scope="module")
def shims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH in which the commands are those of this interpreter."""
    folder = tmp_path_factory.mktemp("bin")
    for name, arguments in COMMANDS.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What commands of the pages are about: two runs, and tables of published ones."""
    folder = tmp_path_factory.mktemp("kept")
    done = run_bench("run", *SMALL, "measure.steps=20", "out=runs/a", cwd=folder)
    assert done.returncode == 0, done.stderr
    shutil.copytree(folder / "runs" / "a", folder / "runs" / "b")
    stack = [{"group": "g", **row} for row in shipped_rows() if row["stack"].startswith("InternLM/InternEvo") and row["n_gpus"]]
    written(folder / "T.csv", stack)
    written(folder / "C.csv", stack[:2])
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_work_in_their_order(page: Path, shims: Path, kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    (tmp_path / "docs").mkdir()
    failed = [told for snippet in snippets(page) if not snippet.reason and (told := failure(snippet, shims, tmp_path))]
    assert failed == []


def failure(snippet: Snippet, shims: Path, cwd: Path) -> str:
    """What went wrong; empty where nothing did."""
    command = ["bash", "-ec", snippet.text] if snippet.language == "sh" else [sys.executable, "-c", snippet.text]
    env = os.environ | {"PATH": f"{shims}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode in MAY_END_OTHERWISE.get(snippet.text, (0,)):
        return ""
    return f"{snippet.page}:{snippet.line}: {snippet.text}: exit {done.returncode}: {done.stderr[-400:]}"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "metrics" / "index.html").exists()
