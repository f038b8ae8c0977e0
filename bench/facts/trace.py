"""What one rank of a laid-out model sends in a step, counted and not timed."""

from enum import StrEnum

from bench.facts.figure import fact


class Phase(StrEnum):
    """Where in a step a collective was called."""

    FORWARD = "forward"
    BACKWARD = "backward"


@fact
class TracedCollective:
    """Equal calls of one rank: torch's name of the operation, ranks in its group, bytes of its larger tensor."""

    phase: Phase
    operation: str
    group_size: int
    n_bytes: int
    n_calls: int
