"""What saving and loading the state of a model took, and what a saved state says of itself."""

import statistics

from bench.facts.figure import fact, require

MANIFEST_VERSION = 1
STATES = "checkpoints"  # folder of the states, in the directory of the launch that goes on from them


@fact
class CheckpointWrite:
    """A saved state of model, optimizer and step: what a write costs a run."""

    step: int  # optimizer steps done
    path: str  # as it was when written
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
    changed: tuple[str, ...] = ()  # what the same training is done with now and was not then, each in a phrase


@fact
class TrainingLog:
    """What a launch did to go on with a training: the state it began from, the states it saved, and the loss of each of its steps."""

    every_steps: int
    read: CheckpointRead | None  # None: it began anew
    writes: tuple[CheckpointWrite, ...]  # each between two timed windows, in the time of none
    not_kept: tuple[str, ...]  # states that could not be saved, each in a sentence
    losses: tuple[float | None, ...]  # mean of the world, before the update, of step 1 after `read` and on; None where not finite

    @property
    def first_step(self) -> int:
        """The number of the step that the first loss is of."""
        return 1 + (self.read.step if self.read else 0)

    @property
    def save_s(self) -> float | None:
        """Median seconds of a save; None where none was made."""
        return statistics.median(w.time_s for w in self.writes) if self.writes else None
