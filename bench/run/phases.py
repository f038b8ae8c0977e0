"""Where a step's time goes, from a few steps after the timed ones. No headline number rests on what happens here."""

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import cast

from accelerate.utils import gather_object
from torch.nn.parallel import DistributedDataParallel

from bench import stats
from bench.facts.breakdown import Phase, RankPhases, StepBreakdown, Straggler
from bench.facts.plan import ParallelPlan, Sharding
from bench.facts.run import RunSpec
from bench.run.clock import PhaseClock
from bench.run.devices import LocalDevice
from bench.run.train import Trainer

PAIRED = "paired steps with and without the gradient exchange"
OWN_PHASES = (Phase.DATA, Phase.FORWARD, Phase.BACKWARD)
STRAGGLER_ERRORS = 3.0  # standard errors that a rank's own work must lie above the median rank's to be named


@dataclass
class PhaseSamples:
    """Seconds of every step of the breakdown on one rank: coupled as they train, and each rank for itself."""

    rank: int
    host: str
    coupled_s: list[dict[Phase, float]] = field(default_factory=list)
    alone_s: list[dict[Phase, float]] = field(default_factory=list)


def break_down(spec: RunSpec, trainer: Trainer, device: LocalDevice, host: str) -> StepBreakdown | None:
    """The breakdown, the same on every rank; None where it is not wanted."""
    n_steps = spec.measure.breakdown_steps
    if n_steps == 0:
        return None
    clock, samples = PhaseClock(device), PhaseSamples(trainer.rank, host)
    apart = why_never_alone(spec.plan)
    for step in range(n_steps + 1):
        for alone in (False, True) if apart is None else (False,):
            phase_s = _one_step(trainer, clock, alone)
            if step > 0:  # the first pair warms up what only it uses
                (samples.alone_s if alone else samples.coupled_s).append(phase_s)
    return breakdown_of(gather_object([samples]), apart)


def _one_step(trainer: Trainer, clock: PhaseClock, alone: bool) -> dict[Phase, float]:
    """Seconds by phase of the very step that is timed elsewhere, cut by hooks."""
    gather_object([trainer.rank])  # all ranks begin together, so that no step inherits a wait
    with _uncoupled(trainer) if alone else nullcontext(), _cut(trainer, clock):
        clock.start()
        trainer.step()
        clock.mark(Phase.OPTIMIZER)
        return clock.stop()


def _uncoupled(trainer: Trainer) -> AbstractContextManager[None]:
    """Gradients stay on their rank. The copies of the model drift apart by it, which changes no time, and nothing is trained any more."""
    model = trainer.passes.models[0]
    assert isinstance(model, DistributedDataParallel)
    return cast(AbstractContextManager[None], model.no_sync())


@contextmanager
def _cut(trainer: Trainer, clock: PhaseClock) -> Iterator[None]:
    """Passes end phases of their own; the optimizer ends what was after them, as part of the backward pass."""
    optimizer = getattr(trainer.passes.optimizer, "optimizer", trainer.passes.optimizer)
    pipeline = trainer.passes.pipeline
    hook = optimizer.register_step_pre_hook(lambda *_: clock.mark(Phase.BACKWARD))
    try:
        with _cut_model(trainer, clock) if pipeline is None else pipeline.cut(clock.mark):
            yield
    finally:
        hook.remove()


@contextmanager
def _cut_model(trainer: Trainer, clock: PhaseClock) -> Iterator[None]:
    """A forward pass ends data (or, with several micro-batches, the backward pass before it)."""
    model, seen = trainer.passes.models[0], iter((Phase.DATA,))
    hooks = (
        # before the gathering of weights, which hooks of a sharded plan do
        model.register_forward_pre_hook(lambda *_: clock.mark(next(seen, Phase.BACKWARD)), prepend=True),
        model.register_forward_hook(lambda *_: clock.mark(Phase.FORWARD)),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def why_never_alone(plan: ParallelPlan) -> str | None:
    """Why no rank can do its part of a step without the others; None where it can."""
    if plan.world_size == 1:
        return "not measured: one rank exchanges nothing"
    if plan.data_parallel_size < plan.world_size or plan.expert_parallel_size > 1:
        return "not measured: this plan exchanges activations within forward and backward"
    if plan.sharding not in (Sharding.NONE, Sharding.ZERO1):
        return f"not measured: {plan.sharding.value} gathers weights for its passes from all ranks"
    return None


def breakdown_of(everyone: Sequence[PhaseSamples], apart: str | None) -> StepBreakdown:
    """The breakdown from what every rank saw. Ranks that cannot work alone are not compared."""
    ranks = tuple(sorted((_rank_phases(samples, len(everyone)) for samples in everyone), key=lambda r: r.rank))
    exposed = [r.exposed_s for r in ranks if r.exposed_s is not None]
    steps = [statistics.fmean(sum(s.coupled_s[i].values()) for s in everyone) for i in range(len(everyone[0].coupled_s))]
    return StepBreakdown(
        n_steps=len(steps),
        step_s=statistics.median(steps),
        ranks=ranks,
        exposed_communication_s=min(exposed, default=None),
        exposed_by=apart or PAIRED,
        bubble_s=statistics.fmean(bubbles) if (bubbles := [r.phase_s[Phase.BUBBLE] for r in ranks if Phase.BUBBLE in r.phase_s]) else None,
        straggler=find_straggler(everyone),
    )


def _rank_phases(samples: PhaseSamples, world_size: int) -> RankPhases:
    alone, coupled = _own_s(samples.alone_s), _own_s(samples.coupled_s)
    paired = [together - single for together, single in zip(coupled, alone, strict=False)]
    own = alone or (coupled if world_size == 1 else [])
    return RankPhases(
        rank=samples.rank,
        host=samples.host,
        phase_s={phase: statistics.median(step[phase] for step in samples.coupled_s) for phase in samples.coupled_s[0]},
        own_s=statistics.median(own) if own else None,
        exposed_s=statistics.median(paired) if paired else None,
    )


def _own_s(steps: Sequence[dict[Phase, float]]) -> list[float]:
    return [sum(step.get(phase, 0.0) for phase in OWN_PHASES) for step in steps]


def find_straggler(everyone: Sequence[PhaseSamples]) -> Straggler | None:
    """The rank whose own work takes longest, where that is not chance; None where ranks cannot be compared or are alike."""
    own = {samples.rank: _own_s(samples.alone_s) for samples in everyone}
    if len(everyone) < 2 or not all(own.values()):
        return None
    medians = {rank: statistics.median(steps) for rank, steps in own.items()}
    slowest, typical = max(medians, key=lambda rank: medians[rank]), statistics.median_low(medians.values())
    # 1.2533: standard error of a median over that of a mean, for normal samples
    error = 1.2533 * stats.deviation(own[slowest]) / math.sqrt(len(own[slowest]))
    if medians[slowest] - typical <= STRAGGLER_ERRORS * error:
        return None
    host = next(samples.host for samples in everyone if samples.rank == slowest)
    return Straggler(rank=slowest, host=host, own_s=medians[slowest], median_own_s=typical)
