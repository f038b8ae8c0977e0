"""Decisions in a run directory."""

from pathlib import Path

from bench.codec import decode_text, encode_text
from bench.errors import UsageError
from bench.facts.decision import Decision
from bench.store.results import PAGE, REPORT, write_whole

DECISION = "decision.json"


def write_decision(run_dir: Path, decision: Decision, report: str, page: str) -> None:
    """Nothing; decision.json, the report and the page hold the decision."""
    write_whole(run_dir / REPORT, report)
    write_whole(run_dir / PAGE, page)
    write_whole(run_dir / DECISION, encode_text(decision))


def read_decision(run_dir: Path) -> Decision:
    """The decision in a run directory. Raises UsageError where there is none."""
    try:
        return decode_text(Decision, (run_dir / DECISION).read_bytes())
    except OSError as error:
        raise UsageError(f"{run_dir / DECISION} cannot be read ({error.strerror}); give the directory of bench decide") from None
