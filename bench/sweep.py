"""Many configurations, each measured in processes of its own; what is finished stays, whatever happens to the rest."""

import re
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from bench.config.compose import compose, compose_plain, expand
from bench.config.schema import SweepPolicy
from bench.copies import Copy, copies
from bench.errors import BenchError, Interrupted, Preempted, RankLost, StoreError, UsageError
from bench.facts.attempt import RunState
from bench.facts.sweep import Sweep, SweepPoint
from bench.jobs import job_at
from bench.report.markdown import markdown_table
from bench.report.sweep_tables import sweep_table
from bench.report.terminal import Pace, announce, tell
from bench.store.attempts import held, read_status
from bench.store.results import open_run_dir
from bench.store.sweeps import begin_sweep, read_list, read_sweep, write_sweep

OF_THE_SWEEP = ("sweep.", "out=", "name=", "results_uri=")


def sweep(*overrides: str) -> tuple[Sweep, Path]:
    """What came of every point, and the folder that holds a run directory for each.

    Launches are taken in rounds, the order of the points drawn anew in each; a point is on disk before the next begins. In a folder
    that an earlier attempt was stopped in, points that are finished or have failed are left alone, and a point that was cut short
    goes on. Raises UsageError before anything runs, and Preempted or Interrupted when asked to stop.
    """
    own = [text for text in overrides if text.startswith(OF_THE_SWEEP)]
    config = compose(own)
    points = points_of([text for text in overrides if text not in own], config.sweep)
    launches = _launches(points)
    folder = open_run_dir(config.out, config.name)
    try:
        with held(folder), copies(config.results_uri, folder, [point.name for point in points]) as copy:
            begin_sweep(folder, points)
            _rounds(folder, points, launches, config.sweep, copy)
            return _write(folder, points), folder
    except OSError as error:
        raise StoreError(f"out: {folder} cannot be written ({error.strerror}); make room, run the same command again") from None


def _rounds(folder: Path, points: Sequence[SweepPoint], launches: Mapping[str, int], policy: SweepPolicy, copy: Copy) -> None:
    """Nothing; every point is finished or has failed. `launches`: how many each point wants, by its name."""
    pace, n_done = Pace(), 0
    for turn in count():
        if not (still_open := [point for point in points if _is_open(folder / point.name)]):
            return
        n = n_done + sum(max(1, launches[point.name] - turn) for point in still_open)
        order = np.random.default_rng((policy.seed, turn)).permutation(len(still_open))
        for place, i in enumerate(order):
            point = still_open[i]
            announce(f"round {turn + 1}, {place + 1} of {len(still_open)}: {' '.join(point.overrides)}", pace.left(n_done, n))
            try:
                _one_launch(folder / point.name, point, policy)
            finally:
                copy(point.name)
                _write(folder, points)
            n_done += 1


def points_of(overrides: Sequence[str], policy: SweepPolicy) -> tuple[SweepPoint, ...]:
    """Every point: the listed ones, each with every combination of what the command line names. Raises UsageError where none is left."""
    listed = read_list(Path(policy.points)) if policy.points else ((),)
    combined = [(*more, *one) for one in listed for more in expand(overrides)]  # what is listed has the last word
    varying = [{text for text in texts if any(text not in other for other in combined)} for texts in combined]
    if not combined:
        raise UsageError(f"sweep.points: {policy.points} lists no point; write lines such as - [model=tiny, plan=ddp]")
    values = ["-".join(text.split("=", 1)[-1] for text in texts if text in own) for texts, own in zip(combined, varying, strict=True)]
    names = [f"{i:03d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', value)[:60]}".rstrip("-") for i, value in enumerate(values)]
    return tuple(SweepPoint(name=name, overrides=texts) for name, texts in zip(names, combined, strict=True))


def _launches(points: Sequence[SweepPoint]) -> dict[str, int]:
    """The launches of each point. Raises UsageError for a key or an option that is not there, which no point is to be blamed for."""
    plain = {point.name: compose_plain(point.overrides) for point in points}
    asked = {name: one["measure"]["launches"] for name, one in plain.items()}
    return {name: n if isinstance(n, int) else 1 for name, n in asked.items()}  # of what is no number the point will say so


def _is_open(run_dir: Path) -> bool:
    status = read_status(run_dir)
    return status is None or status.state in (RunState.RUNNING, RunState.PARTIAL)


def _one_launch(run_dir: Path, point: SweepPoint, policy: SweepPolicy) -> None:
    """Nothing; one more launch of the point is kept, or the reason why there is none."""
    plain: dict[str, Any] = compose_plain(point.overrides) | {"out": str(run_dir)}
    for attempt in range(policy.retries + 1):
        try:
            with job_at(plain, place=None, is_last=attempt == policy.retries) as job:
                if job.share_left() > 0:
                    job.launch(policy.timeout_s)
                if job.share_left() == 0:
                    job.finish()
        except RankLost as error:
            tell(f"{point.name}: {error}")
            continue
        except (Preempted, Interrupted, StoreError):
            raise
        except BenchError as error:
            tell(f"{point.name}: {error}")
            if _is_open(run_dir):
                raise StoreError(f"out: what came of {point.name} could not be written to {run_dir}; make room, run it again") from None
        return


def _write(folder: Path, points: Sequence[SweepPoint]) -> Sweep:
    found = read_sweep(folder, points)
    write_sweep(folder, found, markdown_table(sweep_table(found)) + "\n")
    return found
