"""Being stopped in the midst of finishing: a result that is there is the result, whatever of it was still to be done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import jobs, sweep
from bench.errors import Preempted
from bench.facts.attempt import RunState
from bench.facts.result import Measured, Result
from bench.store import attempts, results


class Killed(BaseException):
    """Nobody hears of a SIGKILL."""


@pytest.fixture
def plain(tmp_path: Path, small_result: Result) -> dict[str, Any]:
    """The configuration of a run whose launch is done and kept, and nothing else yet."""
    run_dir = tmp_path / "point"
    run_dir.mkdir()
    r = small_result
    results.write_measured(run_dir, Measured(config=r.config, environment=r.environment, survey=r.survey, measurement=r.measurement))
    return {**r.config, "out": str(run_dir)}


def stopping(act: Callable[..., Any], stop: BaseException, first: bool) -> Callable[..., Any]:
    def acted(*arguments: Any) -> Any:
        if first:
            act(*arguments)
        raise stop

    return acted


@pytest.mark.parametrize("stop", [Preempted("asked to stop by SIGTERM"), Killed()], ids=["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize(
    "moment",  # where, in which act, and whether after it
    [
        (results, "write_result", True),
        (attempts, "write_status", False),
        (attempts, "write_status", True),
        (attempts, "forget_launches", False),
        (attempts, "forget_launches", True),
    ],
)
def test_a_result_is_final(
    plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch, stop: BaseException, moment: tuple[Any, str, bool]
) -> None:
    run_dir = Path(plain["out"])

    def finish() -> None:
        room, name, first = moment
        with jobs.job_at(plain, place=None) as job, monkeypatch.context() as patch:
            assert job.share_left() == 0
            patch.setattr(room, name, stopping(getattr(room, name), stop, first))
            job.finish()

    with pytest.raises(type(stop)):
        finish()
    kept = (run_dir / results.RESULT).read_bytes()
    if sweep._is_open(run_dir):
        with jobs.job_at(plain, place=None) as job:
            assert job.share_left() == 0  # nothing is measured again
            job.finish()
    assert (run_dir / results.RESULT).read_bytes() == kept
    status = attempts.read_status(run_dir)
    assert status is not None
    assert status.state is RunState.FINISHED
    assert not (run_dir / results.PARTIAL).exists()
