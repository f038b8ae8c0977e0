"""Kept runs for others: one archive, one table."""

from collections.abc import Sequence
from pathlib import Path

from bench.config.compose import compose, find_device
from bench.cost.flops import Convention, flops_per_token, recomputed_flops_per_token
from bench.errors import InvalidMeasurement, UsageError
from bench.facts.result import Result
from bench.facts.throughput import ThroughputRow
from bench.report.throughput_tables import throughput_csv, throughput_markdown
from bench.store.bundles import write_bundle
from bench.store.results import RESULT, read_result


def bundle(*arguments: str) -> tuple[Path, int]:
    """The archive of a run directory (`out`, or RUN.tar.gz here), and the number of files in it.

    Raises UsageError where there is no such directory, and where the archive is there already.
    """
    folders, overrides = split(arguments)
    if len(folders) != 1:
        raise UsageError(f"bundle: {len(folders)} run directories given; it takes one, as in bench bundle runs/a out=a.tar.gz")
    folder, out = Path(folders[0]), compose(overrides).out
    if not folder.is_dir():
        raise UsageError(f"bundle: {folder} is no directory; give a run directory")
    file = Path(out) if out else Path(f"{folder.resolve().name}.tar.gz")
    if file.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"out: {file} lies in the run directory itself; choose a place outside")
    return file, write_bundle(folder, file)


def rows_below(*arguments: str) -> tuple[list[ThroughputRow], list[str]]:
    """A row for every result below the directories, and a line for each file that is none. Raises UsageError where nothing is found."""
    folders, _ = split(arguments)
    rows, unread = [], []
    for file in (file for folder in folders for file in _results_below(Path(folder))):
        try:
            rows.append(throughput_row(read_result(file), str(file.parent)))
        except (UsageError, InvalidMeasurement) as error:
            unread.append(f"{file}: {error}")
    if not rows:
        raise UsageError(f"table: no {RESULT} below {', '.join(folders) or 'nothing'}; give run directories, or folders of them")
    return rows, unread


def table_text(rows: Sequence[ThroughputRow], *arguments: str) -> str:
    """The rows as Markdown, or in the `format` that the overrides among the arguments name."""
    return (throughput_csv if compose(split(arguments)[1]).format == "csv" else throughput_markdown)(rows)


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What names files, and what are overrides."""
    named = [text for text in arguments if "=" not in text or Path(text).exists()]
    return named, [text for text in arguments if text not in named]


def _results_below(folder: Path) -> list[Path]:
    if not folder.exists():
        raise UsageError(f"table: {folder} is not there; give run directories, or folders of them")
    return sorted(folder.rglob(RESULT)) if folder.is_dir() else [folder]


def throughput_row(result: Result, folder: str) -> ThroughputRow:
    """The row of one result. Raises InvalidMeasurement where it is no training speed."""
    m = result.measurement
    if m.invalid:
        raise InvalidMeasurement(f"not a training speed: {m.invalid[0]}")
    needed = flops_per_token(m.model, Convention.FULL)
    done = needed + recomputed_flops_per_token(m.model, m.plan.recompute, Convention.FULL)
    device = find_device(m.device_name)
    peak = device.peak_flops_per_s.get(m.precision) if device else None
    per_device = m.tokens_per_s_per_device
    return ThroughputRow(
        folder=folder,
        date=result.environment.started_at[:10],
        measurement=m,
        n_launches=max(1, len(result.launches)),
        flops_per_s_per_device=per_device * needed,
        mfu_fraction=per_device * needed / peak.value if peak else None,
        hfu_fraction=per_device * done / peak.value if peak else None,
    )
