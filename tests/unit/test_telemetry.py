"""Telemetry from made-up sources, and from whatever this machine has: absent is never zero."""

import time
from pathlib import Path

import pytest

from bench.facts.hardware import Backend
from bench.run.devices import LocalDevice
from bench.run.sources import ProcessorSource, Reading, Source, find_source
from bench.run.telemetry import Sampler, totals


class Scripted:
    """A device at 500 W whose counter advances by 100 J with every look."""

    name = "script"

    def __init__(self, period_s: float | None, **changes: object) -> None:
        self.period_s, self.n, self._changes = period_s, 0, changes

    def read(self) -> Reading:
        self.n += 1
        seen = {"power_w": 500.0, "energy_j": 100.0 * self.n, "clock_hz": 2e9 - self.n, "temperature_c": 50.0 + self.n} | self._changes
        return Reading(**seen)  # type: ignore[arg-type]


def sampled(source: Source, n_windows: int = 2, window_s: float = 0.0) -> Sampler:
    sampler = Sampler(source)
    for _ in range(n_windows):
        with sampler.window():
            time.sleep(window_s)
    return sampler


def test_energy_is_what_the_counter_gained_within_windows() -> None:
    told = sampled(Scripted(None)).summary(0, "here", timed_s=2.0)
    assert told is not None
    # two windows, each with one look at either edge: 2 x 100 J, the 100 J between the windows left out
    assert (told.energy_j, told.n_samples, told.power_w, told.peak_temperature_c) == (200.0, 4, 500.0, 54.0)
    assert told.throttled_fraction is None


def test_without_a_counter_energy_is_mean_power_by_time() -> None:
    told = sampled(Scripted(None, energy_j=None)).summary(0, "here", timed_s=2.0)
    assert told is not None
    assert told.energy_j == 1000.0


def test_a_thread_looks_within_a_window_and_stops_with_it() -> None:
    source = Scripted(0.01)
    sampled(source, n_windows=1, window_s=0.2)
    seen = source.n
    assert seen > 4
    time.sleep(0.05)
    assert source.n == seen


def test_throttling_is_a_share_of_the_looks() -> None:
    told = sampled(Scripted(None, throttle_reasons=("power cap",), n_foreign_processes=1)).summary(3, "here", timed_s=1.0)
    assert told is not None
    assert (told.throttled_fraction, told.throttle_reasons, told.n_foreign_processes) == (1.0, ("power cap",), 1)


def test_energy_per_token_needs_every_device() -> None:
    one = sampled(Scripted(None)).summary(0, "here", timed_s=1.0)
    mute = sampled(Scripted(None, power_w=None, energy_j=None)).summary(1, "here", timed_s=1.0)
    whole = totals([one, one], n_tokens=100)
    assert whole is not None
    assert (whole.energy_j, whole.energy_j_per_token, whole.power_w) == (400.0, 4.0, 1000.0)
    part = totals([one, mute], n_tokens=100)
    assert part is not None
    assert (part.energy_j, part.energy_j_per_token, part.power_w) == (None, None, None)
    assert totals([None, None], n_tokens=100) is None


def package(root: Path, energy_uj: int, number: int = 0) -> Path:
    path = root / f"intel-rapl:{number}"
    path.mkdir(exist_ok=True)
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text("1000000000\n")
    return path


def test_the_counters_of_all_packages_are_added_and_followed_over_their_wrap(tmp_path: Path) -> None:
    package(tmp_path, 900_000_000), package(tmp_path, 5_000_000, 1)
    package(tmp_path, 1, 2).rename(tmp_path / "intel-rapl:0:0")  # a part of a package, counted in it already
    source = ProcessorSource(tmp_path)
    assert source.read().energy_j == 0
    package(tmp_path, 100_000_000), package(tmp_path, 6_000_000, 1)
    # 100 J up to the wrap at 1000 J, 100 J beyond it, and 1 J of the other package
    assert source.read().energy_j == pytest.approx(201.0)


def test_a_machine_without_rapl_tells_no_energy(tmp_path: Path) -> None:
    assert ProcessorSource(tmp_path).read().energy_j is None


def test_this_machine_tells_what_it_can_and_no_zero() -> None:
    source = find_source(LocalDevice(Backend.CPU, 0))
    reading = source.read() if source else Reading()
    assert all(value != 0 for value in (reading.power_w, reading.clock_hz, reading.temperature_c))
    assert find_source(LocalDevice(Backend.CPU, 1)) is None  # one rank tells for the machine


def test_no_source_is_no_telemetry() -> None:
    sampler = Sampler(None)
    with sampler.window():
        pass
    assert sampler.summary(0, "here", 1.0) is None
