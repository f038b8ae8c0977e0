"""What saving and loading the state of a model took, and what a saved state says of itself."""

from bench.facts.figure import fact, require

MANIFEST_VERSION = 1


@fact
class CheckpointWrite:
    """A saved state of model, optimizer and step: what a write costs a run."""

    step: int  # optimizer steps done
    path: str
    time_s: float  # all ranks, until the state could survive a power cut
    size_bytes: int  # of all files

    def __post_init__(self) -> None:
        require(self.time_s >= 0, f"time_s {self.time_s:g} must not be negative")
        require(self.size_bytes >= 0, f"size_bytes {self.size_bytes} must not be negative")


@fact
class CheckpointRead:
    """A loaded state, and why it was not a later one."""

    step: int
    path: str
    time_s: float
    passed_over: tuple[str, ...]  # later states that were torn, each in a sentence
