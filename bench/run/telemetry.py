"""What the sources told during the timed windows. What nobody tells is None, never zero."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.facts.breakdown import DeviceTelemetry, Telemetry
from bench.run.sources import Reading, Source, scaled


class Sampler:
    """Looks at a source during the timed windows, from a thread of its own; with no source it does nothing."""

    def __init__(self, source: Source | None) -> None:
        self._source = source
        self._readings: list[Reading] = []
        self._energy_j: list[float | None] = []

    @contextmanager
    def window(self) -> Iterator[None]:
        """One window is being timed."""
        if self._source is None:
            yield
            return
        first = self._look()
        with self._looking():
            yield
        last = self._look()
        known = first.energy_j is not None and last.energy_j is not None
        self._energy_j.append((last.energy_j or 0.0) - (first.energy_j or 0.0) if known else None)

    def _look(self) -> Reading:
        assert self._source is not None
        self._readings.append(self._source.read())
        return self._readings[-1]

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """A thread looks now and then, where looking costs the device nothing."""
        enough, period_s = threading.Event(), self._source.period_s if self._source else None
        thread = threading.Thread(target=self._keep_looking, args=(enough, period_s), daemon=True)
        if period_s:
            thread.start()
        try:
            yield
        finally:
            enough.set()
            if period_s:
                thread.join()

    def _keep_looking(self, enough: threading.Event, period_s: float) -> None:
        while not enough.wait(period_s):
            self._look()

    def summary(self, rank: int, host: str, timed_s: float) -> DeviceTelemetry | None:
        """What this rank's source told over `timed_s` seconds of windows."""
        if self._source is None or not self._readings:
            return None
        return summarize(self._source.name, rank, host, readings=self._readings, energy_j=_sum(self._energy_j), timed_s=timed_s)


def summarize(name: str, rank: int, host: str, *, readings: Sequence[Reading], energy_j: float | None, timed_s: float) -> DeviceTelemetry:
    """The readings of one source; energy from its counter, or from its mean power."""
    power = [r.power_w for r in readings if r.power_w is not None]
    clock = [r.clock_hz for r in readings if r.clock_hz is not None]
    temperature = [r.temperature_c for r in readings if r.temperature_c is not None]
    reasons = [r.throttle_reasons for r in readings if r.throttle_reasons is not None]
    foreign = [r.n_foreign_processes for r in readings if r.n_foreign_processes is not None]
    power_w = _mean(power) if power else scaled(energy_j, 1 / timed_s)
    return DeviceTelemetry(
        rank=rank,
        host=host,
        source=name,
        n_samples=len(readings),
        power_w=power_w,
        peak_power_w=max(power, default=None),
        energy_j=scaled(power_w, timed_s) if energy_j is None else energy_j,
        clock_hz=_mean(clock),
        lowest_clock_hz=min(clock, default=None),
        peak_temperature_c=max(temperature, default=None),
        throttled_fraction=sum(map(bool, reasons)) / len(reasons) if reasons else None,
        throttle_reasons=tuple(sorted({text for texts in reasons for text in texts})),
        n_foreign_processes=max(foreign, default=None),
    )


def totals(everyone: Sequence[DeviceTelemetry | None], n_tokens: int) -> Telemetry | None:
    """All sources together; None where there is none."""
    devices = tuple(told for told in everyone if told)
    energy_j = _sum([d.energy_j for d in devices])
    if not devices:
        return None
    power_w = _sum([d.power_w for d in devices])
    return Telemetry(devices=devices, power_w=power_w, energy_j=energy_j, energy_j_per_token=scaled(energy_j, 1 / n_tokens))


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
