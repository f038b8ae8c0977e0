"""Waits that stand for operations: of the same length, with the same tensors."""

import time

import pytest
import torch
from torch import nn

from bench.errors import UsageError
from bench.facts.meter import METER_VERSION, Meter, MeteredCall, MeteredOutput
from bench.run import meter as metering

pytestmark = pytest.mark.alone


class Layer(nn.Module):
    """A product and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).relu_().sum()


def recorded(layer: Layer, x: torch.Tensor) -> metering.Recorder:
    recorder = metering.Recorder()
    with recorder.watching():
        layer(x).backward()
    return recorder


def meter_of(recorder: metering.Recorder, seconds: float) -> Meter:
    """Every operation takes so long."""
    calls = {
        key: MeteredCall(seconds=seconds, outputs=known[0], is_sequence=known[1])
        for key, known in recorder.outputs.items()
        if known is not None
    }
    return Meter(meter_version=METER_VERSION, model="m", own_s=0.0, calls=calls)


def test_a_metered_pass_leaves_gradients_of_the_same_shapes_and_lasts_as_long_as_was_said() -> None:
    layer, x = Layer(), torch.randn(8, 64)
    recorder = recorded(layer, x)
    layer.zero_grad()
    mode = metering.Metered(meter_of(recorder, 0.01))
    mode.begin()
    begun = time.perf_counter()
    with mode.watching():
        layer(x).backward()
    taken, n_calls = time.perf_counter() - begun, sum(map(len, recorder.seconds.values()))
    assert n_calls >= 5
    assert taken >= 0.01 * n_calls * 0.99
    assert [p.grad.shape for p in layer.parameters() if p.grad is not None] == [p.shape for p in layer.parameters()]


def test_what_nobody_measured_is_computed() -> None:
    mode = metering.Metered(Meter(meter_version=METER_VERSION, model="m", own_s=0.0, calls={}))
    mode.begin()
    with mode.watching():
        assert torch.equal(torch.ones(3) + 1, torch.full((3,), 2.0))


def test_an_operation_in_place_returns_what_it_was_given() -> None:
    x = torch.zeros(4)
    recorder = metering.Recorder()
    with recorder.watching():
        x.add_(1)
    (outputs, is_sequence), *_ = (known for known in recorder.outputs.values() if known)
    assert (outputs, is_sequence) == ((MeteredOutput(argument=0),), False)
    mode = metering.Metered(meter_of(recorder, 0.0))
    with mode.watching():
        assert x.add_(1) is x
    assert torch.equal(x, torch.ones(4))  # of the recorded call alone


def test_a_call_is_known_by_its_shapes_and_not_by_its_values() -> None:
    op = torch.ops.aten.mul.Tensor
    same = {metering.key_of(op, (torch.randn(2, 3), torch.tensor(value)), {}) for value in (1.0, 2.0)}
    assert len(same) == 1
    assert metering.key_of(op, (torch.randn(3, 2), torch.tensor(1.0)), {}) not in same


def test_a_rank_that_was_kept_from_its_core_makes_up_for_it() -> None:
    layer, x = Layer(), torch.randn(8, 64)
    meter = meter_of(recorded(layer, x), 0.02)
    mode = metering.Metered(meter)
    mode.begin()
    begun = time.perf_counter()
    with mode.watching():
        loss = layer(x)
        time.sleep(0.015)  # as if another process had the core
        loss.backward()
    n_calls = len([1 for _ in meter.calls])
    assert time.perf_counter() - begun < 0.02 * n_calls + 0.015


def test_a_compiled_run_cannot_be_metered() -> None:
    class Spec:
        class train:  # noqa: N801
            compiled = True

    class Trainer:
        spec = Spec

    with (
        pytest.raises(UsageError, match=r"measure\.meter"),
        metering.metered(Trainer(), meter_of(recorded(Layer(), torch.randn(2, 64)), 0.0)),  # type: ignore[arg-type]
    ):
        pass
