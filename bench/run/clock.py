"""Step times without disturbing the step: device events, or a monotonic clock where the CPU computes."""

import time

import torch

from bench.facts.breakdown import Phase
from bench.run.devices import LocalDevice


class StepClock:
    """Times up to `capacity` steps between two synchronised edges. Nothing is allocated between them.

    On an accelerator a step boundary is an event in the device's queue, read after the window; on a CPU it is
    time.perf_counter_ns, which neither a changed wall clock nor a time zone moves.
    """

    def __init__(self, device: LocalDevice, capacity: int) -> None:
        self._device = device
        self._marks_ns = [0] * (capacity + 1)
        self._events = [] if device.is_cpu else [torch.Event(device.torch_device, enable_timing=True) for _ in range(capacity + 1)]
        self._n = 0

    def start(self) -> None:
        """Nothing; the window opens when the device is idle."""
        self._device.synchronize()
        self._n = 0
        self._boundary()

    def mark(self) -> None:
        """Nothing; one more step has been queued."""
        self._n += 1
        self._boundary()

    def stop(self) -> tuple[list[float], float]:
        """Seconds of every step, and of the whole window, after the device is idle again."""
        self._device.synchronize()
        window_s = (time.perf_counter_ns() - self._marks_ns[0]) / 1e9
        pairs = range(self._n)
        if self._events:
            return [self._events[i].elapsed_time(self._events[i + 1]) / 1e3 for i in pairs], window_s
        return [(self._marks_ns[i + 1] - self._marks_ns[i]) / 1e9 for i in pairs], window_s

    def _boundary(self) -> None:
        if self._events:
            self._events[self._n].record()
        if self._n == 0 or not self._events:
            self._marks_ns[self._n] = time.perf_counter_ns()


class PhaseClock:
    """Seconds of every phase of one step: device events between phases, or a monotonic clock where the CPU computes."""

    def __init__(self, device: LocalDevice) -> None:
        self._device = device
        self._phases: list[Phase] = []
        self._marks_ns: list[int] = []
        self._events: list[torch.Event] = []

    def start(self) -> None:
        """Nothing; a step begins on an idle device."""
        self._device.synchronize()
        self._phases, self._marks_ns, self._events = [], [], []
        self._boundary()

    def mark(self, phase: Phase) -> None:
        """Nothing; all since the last mark was this phase."""
        self._phases.append(phase)
        self._boundary()

    def stop(self) -> dict[Phase, float]:
        """Seconds by phase, summed over its occurrences, after the device is idle again."""
        self._device.synchronize()
        total: dict[Phase, float] = dict.fromkeys(self._phases, 0.0)
        for i, phase in enumerate(self._phases):
            if self._events:
                total[phase] += self._events[i].elapsed_time(self._events[i + 1]) / 1e3
            else:
                total[phase] += (self._marks_ns[i + 1] - self._marks_ns[i]) / 1e9
        return total

    def _boundary(self) -> None:
        if self._device.is_cpu:
            self._marks_ns.append(time.perf_counter_ns())
        else:
            event = torch.Event(self._device.torch_device, enable_timing=True)
            event.record()
            self._events.append(event)
