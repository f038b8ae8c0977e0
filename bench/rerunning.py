"""A kept configuration, run again."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.comparing import NamedRun, comparison, named_run
from bench.config.compose import compose_plain, load
from bench.errors import UsageError
from bench.facts.comparison import Comparison
from bench.facts.result import Result
from bench.jobs import finished, job_at
from bench.reporting import write_page
from bench.run.launch import find_place
from bench.store.attempts import ASKED_ANEW


def rerun(kept: str, *overrides: str) -> tuple[Result, Comparison | None]:
    """The result of the same configuration run again, and how it compares; None of that on all ranks but the first.

    The kept configuration is taken over the present defaults, so that a file of an earlier version runs too; what changes nothing
    that is measured (where it is kept, who is told, on which nodes) is that of this command.
    Raises UsageError for any override but `out`, and where the kept configuration cannot run here.
    """
    if wrong := next((text for text in overrides if not text.startswith("out=")), None):
        raise UsageError(f"rerun: {wrong} given; a rerun repeats the kept configuration and takes only out=DIR; use bench run for another")
    before, defaults = named_run(kept), compose_plain(overrides)
    plain = overlaid(defaults, before.result.config) | {key: defaults[key] for key in ASKED_ANEW}
    config, place = load(plain), find_place(os.environ)
    if done := finished(plain, config):
        again = done
    else:
        with job_at(plain, place, is_last=False) as job:
            while job.share_left() > 0:
                job.launch()
            again = job.finish()
    if again.run_dir and config.page:
        write_page(Path(again.run_dir), again)
    if not again.run_dir:
        return again, None
    return again, comparison(before, NamedRun(again.run_dir, again, is_partial=False), config, force=True)


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping `above`, and what it lacks from `below`, level by level among the policies; a group is taken whole."""
    whole = {**below, **above}
    for name in ("device", "plan", "train", "measure", "probe", "slice", "sweep"):
        if isinstance(below.get(name), dict) and isinstance(above.get(name), dict):
            whole[name] = {**below[name], **above[name]}
    return whole
