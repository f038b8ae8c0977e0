"""When the state of a measured training is saved: between two windows, never inside one; and what its steps lost.

Without `train.checkpoint_every_steps` every method here does nothing.
"""

import uuid
from pathlib import Path

from accelerate.utils import broadcast_object_list, gather_object

from bench.errors import BenchError, UsageError
from bench.facts.checkpoint import CheckpointRead, CheckpointWrite, TrainingLog
from bench.facts.measurement import MeasurementWarning, WarningKind
from bench.on_demand import on_demand
from bench.run.record import finite
from bench.run.train import Trainer

SLACK = 2.0  # a save at the end is begun where so many times the longest one so far is left


class Saver:
    """States of one launch: the one it begins from, those it writes, and the loss of every step in between.

    All methods but `cut` are collective. `folder` is rank 0's; the others learn it, and must see the same.
    """

    def __init__(self, trainer: Trainer, folder: Path | None) -> None:
        self._trainer, self._folder = trainer, folder or Path()
        self._every = trainer.spec.train.checkpoint_every_steps
        self._read: CheckpointRead | None = None
        self._writes: list[CheckpointWrite] = []
        self._not_kept: list[str] = []
        self._losses: list[float] = []
        self._looked_at = 0  # steps done when it was last asked whether a save is due

    def begin(self) -> CheckpointRead | None:
        """The state that the trainer now has; None where it begins anew. Raises UsageError where ranks do not share the folder."""
        if self._every is None:
            return None
        self._folder = Path(broadcast_object_list([str(self._folder.resolve())])[0])
        self._refuse_unshared()
        self._read = on_demand("bench.run.checkpoint", "load")(self._trainer, self._folder)
        self._looked_at = self._trainer.n_done
        self._trainer.keep_losses()
        return self._read

    def cut(self, n_steps: int) -> int:
        """Steps of the next window, which ends where a save is due."""
        return n_steps if self._every is None else min(n_steps, self._every - self._trainer.n_done % self._every)

    def save_if_due(self) -> None:
        """Nothing; a state is saved where a multiple of so many steps was passed. One that cannot be kept is told of later."""
        if self._every is None:
            return
        n_done, before = self._trainer.n_done, self._looked_at
        self._looked_at = n_done
        if n_done // self._every > before // self._every:
            self._save()

    def save_at_last(self, left_s: float) -> bool:
        """Whether a state was saved, or tried to be, in the seconds that are left before all must have ended."""
        if self._every is None:
            return False
        longest_s = SLACK * max((write.time_s for write in self._writes), default=0.0)
        if fits := min(gather_object([left_s - longest_s])) > 0:
            self._save()
        else:
            self._not_kept.append(f"the state after step {self._trainer.n_done} was not saved at the end: the grace was too short for it")
        return bool(fits)

    def told(self) -> TrainingLog | None:
        """What it did so far."""
        if self._every is None:
            return None
        by_rank = gather_object([self._trainer.take_losses()])
        self._losses += [self._trainer.world_loss(sum(step)) for step in zip(*by_rank, strict=True)]
        return TrainingLog(
            every_steps=self._every,
            read=self._read,
            writes=tuple(self._writes),
            not_kept=tuple(self._not_kept),
            losses=tuple(finite(loss) for loss in self._losses),
        )

    def _save(self) -> None:
        try:
            self._writes.append(on_demand("bench.run.checkpoint", "save")(self._trainer, self._folder, self._trainer.n_done))
        except BenchError as error:
            self._not_kept.append(str(error))

    def _refuse_unshared(self) -> None:
        """Nothing; raises UsageError on every rank where one does not see what rank 0 writes."""
        name = broadcast_object_list([f".seen-{uuid.uuid4().hex}.tmp"])[0]
        if self._trainer.rank == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / name).touch()
        gather_object([None])  # written before it is looked for
        blind = [rank for rank, sees in enumerate(gather_object([(self._folder / name).exists()])) if not sees]
        if self._trainer.rank == 0:
            (self._folder / name).unlink()
        if blind:
            raise UsageError(
                f"train.checkpoint_every_steps: rank {blind[0]} does not see {self._folder}; "
                "give an out on a file system that all nodes share, or null to save nothing"
            )


def training_warnings(log: TrainingLog | None) -> tuple[MeasurementWarning, ...]:
    """What is to be said of states that were torn, could not be kept, or were of a training done otherwise."""
    if log is None:
        return ()
    read = log.read
    texts = [f"checkpoint: {text}" for text in read.passed_over] if read else []
    texts += [f"goes on from step {read.step} {text}" for text in read.changed] if read else []
    return tuple(MeasurementWarning(kind=WarningKind.CHECKPOINT, text=text) for text in (*texts, *log.not_kept))
