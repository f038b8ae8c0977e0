"""Being asked to stop in the midst of reading what is kept: an exception comes out of any line, and is nobody's fault."""

from pathlib import Path
from typing import Any, NoReturn

import pytest

from bench import backtest, jobs, sharing
from bench.config.compose import compose_plain
from bench.errors import Preempted
from bench.store import attempts, failures

ASKED = "asked to stop by SIGTERM; run the same command again"


def stop(*_: Any) -> NoReturn:
    raise Preempted(ASKED)


def test_a_configuration_is_not_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "load", stop)
    plain = compose_plain(["model=tiny"]) | {"out": str(tmp_path / "point")}
    with pytest.raises(Preempted, match=ASKED), jobs.job_at(plain, place=None):
        pytest.fail("the job was opened")
    assert attempts.read_status(tmp_path / "point") is None  # a sweep takes it for one that nobody has begun


@pytest.mark.parametrize(
    "read", [attempts.kept_launches, attempts.read_status, lambda run_dir: failures.failure_of(run_dir, {0: 1}, 1, False)]
)
def test_a_file_that_is_whole_is_neither_torn_nor_absent(read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / attempts.MEASURED, tmp_path / attempts.STATUS, tmp_path / "log" / "failure0.json"]
    (tmp_path / "log").mkdir()
    for file in files:
        file.write_text("{}")
    monkeypatch.setattr(attempts, "decode_text", stop)
    monkeypatch.setattr(failures, "decode_text", stop)
    with pytest.raises(Preempted, match=ASKED):
        read(tmp_path)
    assert all(file.exists() for file in files)


def test_a_row_is_not_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtest, "setup_of", stop)
    with pytest.raises(Preempted, match=ASKED):
        backtest.predict_rows([{"id": "1"}], [], backtest.physical_prior())
    (tmp_path / sharing.RESULT).write_text("{}")
    monkeypatch.setattr(sharing, "read_result", stop)
    with pytest.raises(Preempted, match=ASKED):
        sharing.rows_below(str(tmp_path))
