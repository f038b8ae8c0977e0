"""What could spoil a run on this machine, before there is one."""

from enum import StrEnum

from bench.facts.figure import fact, require


class Level(StrEnum):
    """What a finding means for a run."""

    OK = "ok"
    WARN = "warn"  # it would run, and its numbers may be worse than they need be
    FAIL = "fail"  # it would not run, or its numbers would be wrong


@fact
class Finding:
    """One thing that was looked at."""

    check: str
    level: Level
    found: str
    fix: str = ""  # what to do; empty where all is well

    def __post_init__(self) -> None:
        require(bool(self.found), f"check {self.check}: found is empty; say what was seen")
        require(self.level is Level.OK or bool(self.fix), f"check {self.check}: fix is empty; say what to do about {self.found}")


@fact
class Diagnosis:
    """Everything that was looked at."""

    host: str
    findings: tuple[Finding, ...]

    @property
    def n_failed(self) -> int:
        """Findings that would stop a run."""
        return sum(finding.level is Level.FAIL for finding in self.findings)


def ok(check: str, found: str) -> Finding:
    """A finding that needs nothing done."""
    return Finding(check=check, level=Level.OK, found=found)


def warn(check: str, found: str, fix: str) -> Finding:
    """A finding that may cost speed or steadiness."""
    return Finding(check=check, level=Level.WARN, found=found, fix=fix)


def fail(check: str, found: str, fix: str) -> Finding:
    """A finding that stops a run."""
    return Finding(check=check, level=Level.FAIL, found=found, fix=fix)
