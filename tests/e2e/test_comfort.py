"""Completion, JSON, quiet, colours: what makes the command line pleasant."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from bench.cli import main
from bench.report.completion import SHELLS
from bench.report.terminal import QUIET, ProgressLine, quiet
from tests.conftest import ROOT
from tests.kept_runs import kept, launch_of, result_of, steps_of

# what the shell's own completion would have set, and what it would offer
PRESS_TAB = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDS=($2) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
[ "${2: -1}" != " " ] || COMP_CWORD=$((COMP_CWORD + 1))
_bench
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The completion script of each shell."""
    folder, files = tmp_path_factory.mktemp("completion"), {}
    for shell in SHELLS:
        files[shell] = folder / shell
        with files[shell].open("w") as file, redirect_stdout(file):
            assert main(["completion", shell]) == 0
    return files


def offered(script: Path, line: str) -> list[str]:
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run([bash, "-c", PRESS_TAB, "bash", str(script), line], capture_output=True, text=True, check=True, env={"PATH": ""})
    return done.stdout.split()


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["table", "nowhere"], ["predict", "target=nope"], ["decide", "scenario=nope"], ["compare", "here"], ["run", "--cfg"]],
)
def test_what_trains_nothing_does_not_wait_for_torch(arguments: list[str]) -> None:
    """Loading it takes seconds."""
    told = f"import sys; from bench.cli import main\ntry: main({arguments})\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "False", done.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bench comp", ["compare", "completion"]),
        ("bench run model=ti", ["tiny"]),
        ("bench run train.micro", ["train.micro_batch_size="]),
        ("bench run model=tiny --js", ["--json"]),
        ("bench sweep device=c", ["cpu", "cuda"]),
    ],
)
def test_bash_completes_verbs_options_keys_and_flags_without_starting_python(
    scripts: dict[str, Path], line: str, expected: list[str]
) -> None:
    """PATH is empty: nothing else can be started."""
    assert offered(scripts["bash"], line) == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_has_the_same_words_and_parses(scripts: dict[str, Path], shell: str) -> None:
    text = scripts[shell].read_text()
    for word in ("doctor", "model=tiny", "cluster=story", "measure.launches=", "compare.noise_floor.value=", "--force"):
        assert word in text
    assert "worker" not in text.split()
    if program := shutil.which(shell):
        assert subprocess.run([program, "-n", str(scripts[shell])], check=False, capture_output=True).returncode == 0


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "bash, zsh, fish" in capsys.readouterr().err


def test_json_is_the_typed_result_and_nothing_else_on_the_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    runs = [str(kept(tmp_path / name, result_of(launch_of(steps_of(rng, 1000, 20))))) for name in ("a", "b")]
    assert main(["compare", *runs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["contrast"]["n_launches"] == [1, 1]
    assert main(["table", str(tmp_path), "--json"]) == 0
    assert [row["folder"] for row in json.loads(capsys.readouterr().out)] == runs
    assert main(["plan", "target=llama3_70b", "cluster=nvidia_eos", f"out={tmp_path}/plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_quiet_says_nothing_of_progress_and_is_forgotten_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet(True):
        ProgressLine(sys.stderr)("measuring: 3 steps")
        assert os.environ[QUIET]
    assert QUIET not in os.environ
    assert capsys.readouterr().err == ""
    with quiet(False):
        ProgressLine(sys.stderr)("measuring: 3 steps")
    assert capsys.readouterr().err == "measuring: 3 steps\n"


DRAW = """
from bench.report.tables import Table
from bench.report.terminal import print_tables
print_tables(Table("title", ("a",), (("b",),), ("warning: red is not all",)))
"""


def drawn_on_a_terminal(**environment: str) -> str:
    """What the tables look like where the output is a terminal."""
    controller, terminal = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    with subprocess.Popen(
        [sys.executable, "-c", DRAW], stdout=terminal, cwd=ROOT, env=clean | {"TERM": "xterm-256color", **environment}
    ) as p:
        assert p.wait(60) == 0
    os.close(terminal)
    text = os.read(controller, 100_000).decode()
    os.close(controller)
    return text


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38|9[0-7])")


def test_a_terminal_has_colours_unless_no_color_is_set() -> None:
    assert COLOUR.search(drawn_on_a_terminal())
    assert not COLOUR.search(drawn_on_a_terminal(NO_COLOR="1"))


def test_a_pipe_has_no_escape_sequence_at_all() -> None:
    done = subprocess.run([sys.executable, "-c", DRAW], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "\x1b" not in done.stdout
