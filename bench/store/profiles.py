"""What was probed, traced or metered, as files: profile.json, slice.json, trace.json and meter.json in a run directory."""

from pathlib import Path

from bench.codec import decode_text, encode_text
from bench.facts.meter import Meter
from bench.facts.profile import DeviceProfile, SliceMeasurement
from bench.facts.trace import StepTrace
from bench.store.results import read_kept, write_whole

PROFILE = "profile.json"
SLICE = "slice.json"
TRACE = "trace.json"
METER = "meter.json"
KEPT = (PROFILE, SLICE, TRACE)  # what a run directory may hold one of


def write_profile(run_dir: Path, profile: DeviceProfile) -> None:
    """Nothing; profile.json holds the profile."""
    write_whole(run_dir / PROFILE, encode_text(profile))


def read_profile(path: Path) -> DeviceProfile:
    """The profile in a file, or in a run directory. Raises UsageError where it is none."""
    return decode_text(DeviceProfile, read_kept(path, PROFILE))


def write_slice(run_dir: Path, measured: SliceMeasurement) -> None:
    """Nothing; slice.json holds the measurement."""
    write_whole(run_dir / SLICE, encode_text(measured))


def read_slice(path: Path) -> SliceMeasurement:
    """The slice in a file, or in a run directory. Raises UsageError where it is none."""
    return decode_text(SliceMeasurement, read_kept(path, SLICE))


def write_trace(run_dir: Path, trace: StepTrace) -> None:
    """Nothing; trace.json holds the trace."""
    write_whole(run_dir / TRACE, encode_text(trace))


def read_trace(path: Path) -> StepTrace:
    """The trace in a file, or in a run directory. Raises UsageError where it is none."""
    return decode_text(StepTrace, read_kept(path, TRACE))


def write_meter(run_dir: Path, meter: Meter) -> None:
    """Nothing; meter.json holds the meter."""
    write_whole(run_dir / METER, encode_text(meter))


def read_meter(path: Path) -> Meter:
    """The meter in a file, or in a run directory. Raises UsageError where it is none."""
    return decode_text(Meter, read_kept(path, METER))
