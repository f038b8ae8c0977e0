"""The folder of a sweep: its points, each in a folder of its own, and what came of them."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from bench.codec import decode, encode, encode_text
from bench.errors import UsageError
from bench.facts.sweep import Sweep, SweepPoint, SweepRow
from bench.store.attempts import read_status
from bench.store.results import RESULT, read_result, write_whole

POINTS = "points.yaml"
SWEEP = "sweep.json"
TABLE = "sweep.md"


def read_list(file: Path) -> tuple[tuple[str, ...], ...]:
    """The points that a user has listed, each a list of overrides. Raises UsageError where it is no such list."""
    try:
        listed = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"sweep.points: {file} cannot be read ({error.strerror}); give a YAML file") from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise UsageError(f"sweep.points: {file} is not YAML; write a list of points, each a list such as [model=tiny, plan=ddp]") from None
    try:
        return decode(tuple[tuple[str, ...], ...], listed)
    except (UsageError, TypeError):
        raise UsageError(f"sweep.points: {file} is no list of lists of overrides; write lines such as - [model=tiny, plan=ddp]") from None


def begin_sweep(folder: Path, points: Sequence[SweepPoint]) -> None:
    """Nothing; the points are on disk. Raises UsageError where the folder was begun with others."""
    file, asked = folder / POINTS, [encode(point) for point in points]
    if file.exists():
        if yaml.safe_load(file.read_text(encoding="utf-8")) != asked:
            raise UsageError(f"out: {folder} was begun with other points (see {POINTS}); give the same, or choose another directory")
        return
    write_whole(file, yaml.safe_dump(asked, sort_keys=False, allow_unicode=True))


def read_sweep(folder: Path, points: Sequence[SweepPoint]) -> Sweep:
    """What has come of the points so far."""
    return Sweep(rows=tuple(_row(folder / point.name, point) for point in points))


def _row(run_dir: Path, point: SweepPoint) -> SweepRow:
    status, result = read_status(run_dir), read_result(run_dir) if (run_dir / RESULT).exists() else None
    done = result.measurement if result else None
    return SweepRow(
        point=point,
        status=status,
        tokens_per_s=done.tokens_per_s if done else None,
        step_s=done.step_s.median if done else None,
        n_launches=max(1, len(result.launches)) if result else 0,
        n_warnings=len(result.warnings) if result else 0,
    )


def write_sweep(folder: Path, sweep: Sweep, table: str) -> None:
    """Nothing; sweep.json and sweep.md hold what has come of the points so far."""
    write_whole(folder / SWEEP, encode_text(sweep))
    write_whole(folder / TABLE, table)
