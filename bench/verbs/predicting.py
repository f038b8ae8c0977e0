"""The verbs that measure nothing."""

import argparse
import sys

from bench import deciding, forecast
from bench.errors import ExitCode
from bench.facts.accuracy import Accuracy
from bench.report.accuracy_tables import accuracy_tables, composed_tables
from bench.report.decision_tables import decision_tables
from bench.report.plan_tables import plan_tables, scaling_table, uncertainty_table
from bench.report.tables import projected_table
from bench.report.terminal import tell
from bench.reporting import report as write_report
from bench.showing import show


def predict(options: argparse.Namespace) -> int:
    """Predict the target on its clusters, or every row of a table."""
    if forecast.is_table(options.overrides):
        rows, text = forecast.predict_table(*options.overrides)
        failed = sum(bool(row.error) for row in rows)
        if options.json:
            show(options, rows)
        elif not any(override.startswith("out=") for override in options.overrides):
            sys.stdout.write(text)
        tell(f"{len(rows)} rows, {failed} without a prediction (column error)")
        return ExitCode.OK
    predictions, scaling, left_out, run_dir = forecast.predict(*options.overrides)
    tables = (projected_table(predictions, left_out), *map(uncertainty_table, predictions), *map(scaling_table, scaling))
    show(options, predictions, *tables)
    tell(f"kept in {run_dir}")
    return ExitCode.OK


def plan(options: argparse.Namespace) -> int:
    """Search the fastest plan of the target that fits a cluster."""
    searches, run_dir = forecast.plan(*options.overrides)
    show(options, searches, *(table for search in searches for table in plan_tables(search)))
    tell(f"kept in {run_dir}")
    return ExitCode.OK


def decide(options: argparse.Namespace) -> int:
    """Decide between options that start, cost, fail and draw power differently; or tell all of one system."""
    decision, run_dir = deciding.decide(*options.overrides)
    show(options, decision, *decision_tables(decision))
    tell(f"kept in {run_dir}")
    return ExitCode.OK


def backtest(options: argparse.Namespace) -> int:
    """Hold the predictor against published runs it was not fitted on."""
    score = forecast.backtest(*options.overrides)
    show(options, score, *(accuracy_tables(score) if isinstance(score, Accuracy) else composed_tables(score)))
    return ExitCode.OK


def fit_priors(options: argparse.Namespace) -> int:
    """Fit the predictor's coefficients to the published runs."""
    tell(f"written: {forecast.fit_priors(*options.overrides)}")
    return ExitCode.OK


def report(options: argparse.Namespace) -> int:
    """Make one page of what run directories hold."""
    tell(f"written: {write_report(*options.overrides)}")
    return ExitCode.OK
