"""Metered compute: a wait stands for every operation of a rank, of the length that was measured for it once.

Everything else is real: tensors of the same shapes, autograd and its hooks, buckets, collectives and what they hide behind. So a
machine with few cores can be many hosts, as long as it can carry what they send. The numbers that are computed mean nothing.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.errors import UsageError
from bench.facts.meter import METER_VERSION, Meter, MeteredCall, MeteredOutput
from bench.run.dealt import is_kind_dealt
from bench.run.train import Trainer

LEAST_WAIT_S = 200e-6  # shorter ones are gathered: a thread cannot be woken more precisely
MOST_BEHIND_S = 0.02  # that is made up for: some turns of the scheduler
RECORDED_STEPS = 5
NEVER = ("c10d", "_c10d_functional", "fsdp", "profiler")  # what talks to others, and what lays out for it


class _Local(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that sees what a rank does with its own tensors, below DTensor, and when it has waited for others."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(is_kind_dealt(kind) for kind in types):
            return NotImplemented
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What the operation returns."""
        raise NotImplementedError

    def waited(self, seconds: float) -> None:
        """Nothing; this rank has just waited for others, so long at most."""
        raise NotImplementedError

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While it is open, nothing is missed: operations, and waits for collectives."""
        wait = dist.Work.wait

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            out = wait(*args, **kwargs)
            self.waited(time.perf_counter() - begun)
            return out

        dist.Work.wait = timed  # type: ignore[method-assign]
        try:
            with self:
                yield
        finally:
            dist.Work.wait = wait  # type: ignore[method-assign]


class Recorder(_Local):  # type: ignore[no-untyped-call]
    """Times every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.outputs: dict[str, tuple[tuple[MeteredOutput, ...], bool] | None] = {}
        self.waited_s = 0.0

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """See _Local."""
        begun = time.perf_counter()
        out = func(*args, **kwargs)
        taken = time.perf_counter() - begun
        if func.namespace in NEVER:
            self.waited_s += taken
        elif not _is_view(func):
            key = key_of(func, args, kwargs)
            self.seconds[key].append(taken)
            if key not in self.outputs:
                self.outputs[key] = _outputs_of(out, _tensors(args, kwargs))
        return out

    def waited(self, seconds: float) -> None:
        """See _Local."""
        self.waited_s += seconds


class Metered(_Local):  # type: ignore[no-untyped-call]
    """Lets a wait stand for every operation that the meter knows.

    `until` is when this rank's device is done with what it was given. A rank that the machine kept from its core is behind it,
    and makes up for that in its next waits.
    """

    def __init__(self, meter: Meter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls = meter.calls
        self._until = self._behind_s = 0.0

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """See _Local."""
        if func.namespace in NEVER:
            out = func(*args, **kwargs)
            self.waited(0.0)
            return out
        if _is_view(func):
            return func(*args, **kwargs)
        known = self._calls.get(key_of(func, args, kwargs))
        begun = time.perf_counter()
        out = func(*args, **kwargs) if known is None else _returned(known, _tensors(args, kwargs))
        self._pass(time.perf_counter() - begun if known is None else known.seconds)
        return out

    def _pass(self, seconds: float) -> None:
        """Nothing; the device has been busy so much longer."""
        self._until += seconds
        left_s = self._until - time.perf_counter()
        if left_s > LEAST_WAIT_S:
            time.sleep(left_s)
        now = time.perf_counter()
        self._until = max(self._until, now - MOST_BEHIND_S)
        self._behind_s = max(0.0, now - self._until)

    def waited(self, seconds: float) -> None:  # noqa: ARG002  # how long does not matter here
        """See _Local."""
        self._until = max(self._until, time.perf_counter() - self._behind_s)

    def begin(self) -> None:
        """Nothing; this rank's device has nothing to do."""
        self._until, self._behind_s = time.perf_counter(), 0.0


def record_meter(trainer: Trainer, step_s: float) -> Meter:
    """The meter of some steps of this rank, of which one takes `step_s` without being looked at; collective."""
    recorder = Recorder()
    with recorder.watching():
        trainer.step()
        recorder.seconds.clear()
        recorder.waited_s, begun = 0.0, time.perf_counter()
        for _ in range(RECORDED_STEPS):
            trainer.step()
        recorded_s = time.perf_counter() - begun
    own_s = step_s * max(0.0, 1 - recorder.waited_s / recorded_s)
    scale = own_s * RECORDED_STEPS / sum(map(sum, recorder.seconds.values()))
    calls = {
        key: MeteredCall(seconds=scale * sum(taken) / len(taken), outputs=known[0], is_sequence=known[1])
        for key, taken in recorder.seconds.items()
        if (known := recorder.outputs[key]) is not None
    }
    return Meter(meter_version=METER_VERSION, model=trainer.spec.model.name, own_s=own_s, calls=calls)


@contextmanager
def metered(trainer: Trainer, meter: Meter) -> Iterator[Trainer]:
    """While it is open, waits stand for what the trainer computes."""
    if trainer.spec.train.compiled:
        raise UsageError("measure.meter: given with train.compile=true, whose operations nobody sees; use false")
    mode = Metered(meter)
    # DDP waits for its last bucket within backward, where nobody is told
    hook = trainer.passes.optimizer.register_step_pre_hook(lambda *_: mode.waited(0.0))
    mode.begin()
    try:
        with mode.watching():
            yield trainer
    finally:
        hook.remove()


def key_of(func: Any, args: Any, kwargs: Any) -> str:
    """What the time of a call depends on: the operation, shapes and types of tensors, whole numbers."""
    return f"{func}{_shapes(args)}{_shapes(tuple(kwargs.values())) if kwargs else ''}"


def _shapes(values: Any) -> str:
    return ",".join([_shape(value) for value in values])


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)}{value.dtype}"
    if isinstance(value, list | tuple):
        return f"[{_shapes(value)}]"
    return "" if isinstance(value, float) else str(value)


@cache
def _is_view(func: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    found = []
    for value in (*args, *kwargs.values()):
        found += [value] if isinstance(value, Tensor) else [v for v in value if isinstance(v, Tensor)] if isinstance(value, list) else []
    return found


def _outputs_of(out: Any, given: list[Tensor]) -> tuple[tuple[MeteredOutput, ...], bool] | None:
    """None for what cannot be made again without the operation."""
    is_sequence = isinstance(out, list | tuple) or out is None
    values = () if out is None else tuple(out) if is_sequence else (out,)
    if not all(isinstance(value, Tensor | int | float | bool | None) for value in values):
        return None
    return tuple(_output_of(value, given) for value in values), is_sequence


def _output_of(value: Any, given: list[Tensor]) -> MeteredOutput:
    if not isinstance(value, Tensor):
        return MeteredOutput(constant=value)
    same = [i for i, tensor in enumerate(given) if tensor is value]
    if same:
        return MeteredOutput(argument=same[0])
    return MeteredOutput(shape=tuple(value.shape), stride=value.stride(), dtype=str(value.dtype).removeprefix("torch."))


def _returned(known: MeteredCall, given: list[Tensor]) -> Any:
    values = [_made(output, given) for output in known.outputs]
    return (tuple(values) if values else None) if known.is_sequence else values[0]


def _made(output: MeteredOutput, given: list[Tensor]) -> Any:
    if output.argument is not None:
        return given[output.argument]
    if output.shape is None:
        return output.constant
    return torch.empty_strided(output.shape, output.stride, dtype=getattr(torch, output.dtype))
