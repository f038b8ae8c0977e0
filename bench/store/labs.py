"""A laboratory's experiment as files: lab.json, and in the folder of each round what its ranks have left."""

from pathlib import Path

from bench.codec import decode_text, encode_text
from bench.facts.lab import LabResult
from bench.facts.profile import NetworkProbe
from bench.facts.result import Measured
from bench.store.results import MEASURED, PAGE, REPORT, read_kept, write_whole

LAB = "lab.json"
NETWORK = "network.json"


def write_network(run_dir: Path, probe: NetworkProbe) -> None:
    """Nothing; network.json holds the probe."""
    write_whole(run_dir / NETWORK, encode_text(probe))


def read_network(run_dir: Path) -> NetworkProbe | None:
    """The probe of a round; None where there was nothing to probe."""
    file = run_dir / NETWORK
    return decode_text(NetworkProbe, file.read_bytes()) if file.exists() else None


def read_measured(run_dir: Path) -> Measured:
    """What ranks have measured in a folder of a round. Raises UsageError where it is not there."""
    return decode_text(Measured, read_kept(run_dir, MEASURED))


def write_lab(run_dir: Path, result: LabResult, report: str, page: str) -> None:
    """Nothing; lab.json, the report and the page hold the experiment."""
    write_whole(run_dir / REPORT, report)
    write_whole(run_dir / PAGE, page)
    write_whole(run_dir / LAB, encode_text(result))


def read_lab(path: Path) -> LabResult:
    """The experiment in a file, or in a run directory. Raises UsageError where there is none."""
    return decode_text(LabResult, read_kept(path, LAB))


def is_measured(run_dir: Path) -> bool:
    """Whether ranks have left a measurement in a folder of a round."""
    return (run_dir / MEASURED).exists()
