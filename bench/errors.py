"""Every exception of the package. An error knows its exit code; its text is one line for a person."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes that scripts outside this repository rely on."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    INVALID_MEASUREMENT = 3
    DOES_NOT_FIT = 4
    GATE = 5
    PREEMPTED = 75
    TIMEOUT = 124
    INTERRUPTED = 130


class BenchError(Exception):
    """What stopped the command, in one line: what was given, the rule, the nearest fix."""

    exit_code = ExitCode.FAILURE


class UsageError(BenchError):
    """The command line or the configuration cannot be carried out."""

    exit_code = ExitCode.USAGE


class InvalidFact(UsageError, ValueError):
    """A fact whose fields contradict one another."""


class WorkerError(BenchError):
    """A rank ended without a result."""


class InvalidMeasurement(BenchError):
    """Something was measured, and it is not a training step."""

    exit_code = ExitCode.INVALID_MEASUREMENT


class DoesNotFit(BenchError):
    """The model does not fit into the memory of the device."""

    exit_code = ExitCode.DOES_NOT_FIT


class Preempted(BenchError):
    """Somebody has asked for this machine; what was measured is kept, and the same command goes on from there."""

    exit_code = ExitCode.PREEMPTED


class RankLost(Preempted):
    """A rank was killed, and memory was not the reason: the same command may well succeed."""


class StoreError(BenchError):
    """A file could not be written."""


class StoreUnavailable(StoreError):
    """A store of results cannot be read now; nothing measured is lost, and another attempt may go well."""

    exit_code = ExitCode.PREEMPTED


class TimedOut(BenchError):
    """Something took longer than it was allowed to."""

    exit_code = ExitCode.TIMEOUT


class Interrupted(BenchError):
    """The user has pressed Ctrl-C; what was measured is kept."""

    exit_code = ExitCode.INTERRUPTED


def error_for(exit_code: int, text: str) -> BenchError:
    """The exception that a worker's exit code and text stand for."""
    kinds = (UsageError, InvalidMeasurement, DoesNotFit, Preempted, TimedOut)
    kind = next((k for k in kinds if k.exit_code == exit_code), WorkerError)
    return kind(text)
