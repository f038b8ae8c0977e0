"""The verbs that run something here."""

import argparse
from pathlib import Path

from bench import api
from bench.errors import ExitCode, UsageError
from bench.following import follow, stay_alone
from bench.lab import lab as run_lab
from bench.report.breakdown import breakdown_table
from bench.report.comparison_tables import comparison_tables
from bench.report.diagnosis_tables import diagnosis_table
from bench.report.lab_tables import lab_tables
from bench.report.profile_tables import profile_tables, slice_table
from bench.report.sweep_tables import sweep_table
from bench.report.tables import measured_table, projected_table
from bench.report.terminal import tell
from bench.report.trace_tables import trace_table
from bench.rerunning import rerun as run_again
from bench.run.doctor import diagnose
from bench.showing import show
from bench.sweep import sweep as run_sweep


def run(options: argparse.Namespace) -> int:
    """Measure a training run here and project it to the clusters."""
    if follow("run", *options.overrides):
        return ExitCode.OK
    result = api.run(*options.overrides)
    if not result.run_dir:
        return ExitCode.OK  # a rank that somebody else started: rank 0 tells
    projected = [projected_table(result.projections, result.not_projected)] if result.projections or result.not_projected else []
    parts = breakdown_table(result.measurement)
    show(options, result, measured_table(result), *([parts] if parts else []), *projected)
    tell(f"kept in {result.run_dir}")
    return ExitCode.OK


def probe(options: argparse.Namespace) -> int:
    """Measure what the devices here and the links between them reach, each alone."""
    if follow("probe", *options.overrides):
        return ExitCode.OK
    if kept := api.probe(*options.overrides):
        show(options, kept[0], *profile_tables(kept[0]))
        tell(f"kept in {kept[1]}")
    return ExitCode.OK


def slice_target(options: argparse.Namespace) -> int:
    """Time one device's share of a layer of the target here."""
    if kept := api.slice_target(*options.overrides):
        show(options, kept[0], slice_table(kept[0]))
        tell(f"kept in {kept[1]}")
    return ExitCode.OK


def sweep(options: argparse.Namespace) -> int:
    """Measure every combination of what the overrides name; what fails is a row, what was stopped goes on."""
    stay_alone("sweep", [text for text in options.overrides if text.startswith("launch.")])
    done, folder = run_sweep(*options.overrides)
    show(options, done, sweep_table(done))
    tell(f"kept in {folder}")
    return ExitCode.OK if done.n_measured else ExitCode.FAILURE


def trace(options: argparse.Namespace) -> int:
    """Count what one rank of the target would send and multiply on n_devices devices, none of them here."""
    traced, run_dir = api.trace(*options.overrides)
    show(options, traced, trace_table(traced))
    tell(f"kept in {run_dir}")
    return ExitCode.OK


def lab(options: argparse.Namespace) -> int:
    """Build hosts with shaped links here (root), predict how training scales over them, measure it, and tell how far off that was."""
    result, run_dir = run_lab(*options.overrides)
    show(options, result, *lab_tables(result))
    tell(f"kept in {run_dir}")
    return ExitCode.OK


def rerun(options: argparse.Namespace) -> int:
    """Run again from a kept result's own configuration, and compare."""
    if not options.overrides:
        raise UsageError("rerun: no run given; it takes a run directory or its result.json, as in bench rerun runs/a out=again")
    result, found = run_again(*options.overrides)
    if found:
        show(options, found, *comparison_tables([found]))
        tell(f"kept in {result.run_dir}")
    return ExitCode.OK


def doctor(options: argparse.Namespace) -> int:
    """Look at this machine: devices, links, limits, versions, other programs; what is wrong, and what to do."""
    if options.overrides:
        raise UsageError(f"doctor: {options.overrides[0]} given; it takes no key: bench doctor, or bench doctor --json")
    found = diagnose(Path())
    show(options, found, diagnosis_table(found))
    return ExitCode.FAILURE if found.n_failed else ExitCode.OK
