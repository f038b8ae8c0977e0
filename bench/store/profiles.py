"""What was probed, traced or metered, as files: profile.json, slice.json, trace.json and meter.json in a run directory."""

from pathlib import Path

from bench.codec import decode_text, encode_text
from bench.errors import UsageError
from bench.facts.meter import Meter
from bench.facts.profile import DeviceProfile, SliceMeasurement
from bench.facts.trace import StepTrace
from bench.store.results import write_whole

PROFILE = "profile.json"
SLICE = "slice.json"
TRACE = "trace.json"
METER = "meter.json"


def refuse_to_overwrite(run_dir: Path) -> None:
    """Nothing; UsageError where the directory already holds a profile, a slice or a trace."""
    for name in (PROFILE, SLICE, TRACE):
        if (run_dir / name).exists():
            raise UsageError(f"out: {run_dir} already holds a {name}, and results are never overwritten; choose another directory")


def write_profile(run_dir: Path, profile: DeviceProfile) -> None:
    """Nothing; profile.json holds the profile."""
    write_whole(run_dir / PROFILE, encode_text(profile))


def read_profile(path: Path) -> DeviceProfile:
    """The profile in a file, or in a run directory. Raises UsageError where it is none."""
    return decode_text(DeviceProfile, _read(path, PROFILE))


def write_slice(run_dir: Path, measured: SliceMeasurement) -> None:
    """Nothing; slice.json holds the measurement."""
    write_whole(run_dir / SLICE, encode_text(measured))


def read_slice(path: Path) -> SliceMeasurement:
    """The slice in a file, or in a run directory. Raises UsageError where it is none."""
    return decode_text(SliceMeasurement, _read(path, SLICE))


def write_trace(run_dir: Path, trace: StepTrace) -> None:
    """Nothing; trace.json holds the trace."""
    write_whole(run_dir / TRACE, encode_text(trace))


def read_trace(path: Path) -> StepTrace:
    """The trace in a file, or in a run directory. Raises UsageError where it is none."""
    return decode_text(StepTrace, _read(path, TRACE))


def write_meter(run_dir: Path, meter: Meter) -> None:
    """Nothing; meter.json holds the meter."""
    write_whole(run_dir / METER, encode_text(meter))


def read_meter(path: Path) -> Meter:
    """The meter in a file, or in a run directory. Raises UsageError where it is none."""
    return decode_text(Meter, _read(path, METER))


def _read(path: Path, name: str) -> bytes:
    file = path / name if path.is_dir() else path
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}); give a run directory or its {name}") from None
