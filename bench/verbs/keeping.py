"""The verbs that look at kept runs, and the one that hands a run to an engine."""

import argparse
import sys

from bench import comparing, sharing
from bench.errors import ExitCode
from bench.report.comparison_tables import comparison_tables
from bench.report.terminal import tell
from bench.showing import show
from bench.submit import submit as submit_job


def compare(options: argparse.Namespace) -> int:
    """Tell whether runs are faster or slower than the first, and what else differed; a gate that trips makes it exit 5."""
    found = comparing.compare(*options.overrides, force=options.force)
    show(options, found, *comparison_tables(found))
    gated = [c for c in found if c.is_gated]
    for c in gated:
        tell(f"bench: gate: {c.second} is {-c.contrast.change_fraction:.1%} slower than {c.first}; gate {c.gate_fraction:.1%}")
    return ExitCode.GATE if gated else ExitCode.OK


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


def submit(options: argparse.Namespace) -> int:
    """Hand the same command to Slurm as a job that survives preemption."""
    submitted = submit_job(*options.overrides)
    tell(f"job {submitted.job}; log {submitted.log}; exit codes {submitted.exit_codes}; result in {submitted.run_dir}")
    sys.stdout.write(f"{submitted.job}\n")
    return ExitCode.OK
