"""How far a run directory has come."""

from enum import StrEnum

from bench.errors import ExitCode
from bench.facts.figure import fact


class RunState(StrEnum):
    """What a run directory holds."""

    RUNNING = "running"  # somebody works in it, or was killed while doing so
    FINISHED = "finished"  # result.json
    PARTIAL = "partial"  # partial.json, or nothing yet: the same command goes on from here
    FAILED = "failed"  # the reason; the same command would fail again


@fact
class Status:
    """status.json: the truth about a run, since launchers and engines change exit codes on their way."""

    state: RunState
    exit_code: int | None = None  # None while it is running
    reason: str = ""  # one line; empty where nothing went wrong
    n_attempts: int = 1  # commands that have worked on it

    @property
    def outcome(self) -> str:
        """One word for a table."""
        words = {
            ExitCode.INVALID_MEASUREMENT: "invalid",
            ExitCode.DOES_NOT_FIT: "out of memory",
            ExitCode.TIMEOUT: "timeout",
            ExitCode.USAGE: "refused",
        }
        if self.state in (RunState.RUNNING, RunState.PARTIAL) or self.exit_code == ExitCode.OK:
            return self.state.value
        return words.get(ExitCode(self.exit_code or ExitCode.FAILURE), "crashed")


@fact
class Failure:
    """What stopped a rank."""

    rank: int
    exit_code: int
    text: str
