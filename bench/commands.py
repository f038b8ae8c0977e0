"""The verbs that look at kept runs and at this machine."""

import argparse
import sys
from pathlib import Path

from bench import comparing, sharing
from bench.errors import ExitCode, UsageError
from bench.lab import lab as run_lab
from bench.report.comparison_tables import comparison_tables
from bench.report.diagnosis_tables import diagnosis_table
from bench.report.lab_tables import lab_tables
from bench.report.terminal import tell
from bench.run.doctor import diagnose
from bench.showing import show


def compare(options: argparse.Namespace) -> int:
    """Tell whether runs are faster or slower than the first, and what else differed; a gate that trips makes it exit 5."""
    found = comparing.compare(*options.overrides, force=options.force)
    show(options, found, *comparison_tables(found))
    gated = [c for c in found if c.is_gated]
    for c in gated:
        tell(f"bench: gate: {c.second} is {-c.contrast.change_fraction:.1%} slower than {c.first}; gate {c.gate_fraction:.1%}")
    return ExitCode.GATE if gated else ExitCode.OK


def rerun(options: argparse.Namespace) -> int:
    """Run again from a kept result's own configuration, and compare."""
    if not options.overrides:
        raise UsageError("rerun: no run given; it takes a run directory or its result.json, as in bench rerun runs/a out=again")
    result, found = comparing.rerun(*options.overrides)
    if found:
        show(options, found, *comparison_tables([found]))
        tell(f"kept in {result.run_dir}")
    return ExitCode.OK


def bundle(options: argparse.Namespace) -> int:
    """Put a run directory into one archive without secrets."""
    file, n_files = sharing.bundle(*options.overrides)
    tell(f"{n_files} files in {file}; what looks like a secret is masked")
    return ExitCode.OK


def table(options: argparse.Namespace) -> int:
    """Print all results below some directories as Markdown or CSV, in the columns of published throughput tables."""
    rows, unread = sharing.rows_below(*options.overrides)
    if options.json:
        show(options, rows)
    else:
        sys.stdout.write(sharing.table_text(rows, *options.overrides))
    for line in unread:
        tell(f"left out: {line}")
    return ExitCode.OK


def lab(options: argparse.Namespace) -> int:
    """Build hosts with shaped links here (root), predict how training scales over them, measure it, and tell how far off that was."""
    result, run_dir = run_lab(*options.overrides)
    show(options, result, *lab_tables(result))
    tell(f"kept in {run_dir}")
    return ExitCode.OK


def doctor(options: argparse.Namespace) -> int:
    """Look at this machine: devices, links, limits, versions, other programs; what is wrong, and what to do."""
    if options.overrides:
        raise UsageError(f"doctor: {options.overrides[0]} given; it takes no key: bench doctor, or bench doctor --json")
    found = diagnose(Path())
    show(options, found, diagnosis_table(found))
    return ExitCode.FAILURE if found.n_failed else ExitCode.OK
