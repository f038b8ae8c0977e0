"""The command line: one verb, key=value overrides, one line for every error."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import yaml

import bench
from bench import api, commands, deciding, forecast
from bench.codec import nearest
from bench.config.compose import compose_plain, groups, load
from bench.config.keys import keys
from bench.errors import BenchError, ExitCode, Interrupted, Preempted, UsageError
from bench.facts.accuracy import Accuracy
from bench.following import follow, stay_alone
from bench.report.accuracy_tables import accuracy_tables, composed_tables
from bench.report.breakdown import breakdown_table
from bench.report.completion import SHELLS, completion_script
from bench.report.decision_tables import decision_tables
from bench.report.plan_tables import plan_tables, scaling_table, uncertainty_table
from bench.report.profile_tables import profile_tables, slice_table
from bench.report.reference import reference_page
from bench.report.sweep_tables import sweep_table
from bench.report.tables import measured_table, projected_table
from bench.report.terminal import quiet, tell
from bench.report.trace_tables import trace_table
from bench.reporting import report as write_report
from bench.showing import show
from bench.submit import submit as submit_job
from bench.sweep import sweep as run_sweep
from bench.worker import work


def run(options: argparse.Namespace) -> int:
    """Measure a training run here and project it to the clusters."""
    if options.cfg:
        return _show(options.overrides)
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
    if options.cfg:
        return _show(options.overrides)
    if follow("probe", *options.overrides):
        return ExitCode.OK
    if kept := api.probe(*options.overrides):
        show(options, kept[0], *profile_tables(kept[0]))
        tell(f"kept in {kept[1]}")
    return ExitCode.OK


def slice_target(options: argparse.Namespace) -> int:
    """Time one device's share of a layer of the target here."""
    if options.cfg:
        return _show(options.overrides)
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


def submit(options: argparse.Namespace) -> int:
    """Hand the same command to Slurm as a job that survives preemption."""
    if options.cfg:
        return _show(options.overrides)
    submitted = submit_job(*options.overrides)
    tell(f"job {submitted.job}; log {submitted.log}; exit codes {submitted.exit_codes}; result in {submitted.run_dir}")
    sys.stdout.write(f"{submitted.job}\n")
    return ExitCode.OK


def predict(options: argparse.Namespace) -> int:
    """Predict the target on its clusters, or every row of a table."""
    if options.cfg:
        return _show(options.overrides)
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


def trace(options: argparse.Namespace) -> int:
    """Count what one rank of the target would send and multiply on n_devices devices, none of them here."""
    if options.cfg:
        return _show(options.overrides)
    traced, run_dir = api.trace(*options.overrides)
    show(options, traced, trace_table(traced))
    tell(f"kept in {run_dir}")
    return ExitCode.OK


def plan(options: argparse.Namespace) -> int:
    """Search the fastest plan of the target that fits a cluster."""
    if options.cfg:
        return _show(options.overrides)
    searches, run_dir = forecast.plan(*options.overrides)
    show(options, searches, *(table for search in searches for table in plan_tables(search)))
    tell(f"kept in {run_dir}")
    return ExitCode.OK


def decide(options: argparse.Namespace) -> int:
    """Decide between options that start, cost, fail and draw power differently; or tell all of one system."""
    if options.cfg:
        return _show(options.overrides)
    decision, run_dir = deciding.decide(*options.overrides)
    show(options, decision, *decision_tables(decision))
    tell(f"kept in {run_dir}")
    return ExitCode.OK


def report(options: argparse.Namespace) -> int:
    """Make one page of what run directories hold."""
    tell(f"written: {write_report(*options.overrides)}")
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


def completion(options: argparse.Namespace) -> int:
    """Print a script that lets bash, zsh or fish complete verbs, groups, options and keys."""
    if len(options.overrides) != 1:
        raise UsageError(f"completion: {len(options.overrides)} shells given; it takes one of {', '.join(SHELLS)}")
    flags = [text for action in _parser()._actions for text in action.option_strings]
    verbs = [verb for verb in VERBS if verb != "worker"]
    sys.stdout.write(completion_script(options.overrides[0], verbs, flags, groups(), [key.path for key in keys()]))
    return ExitCode.OK


def worker(options: argparse.Namespace) -> int:
    """One rank; started by `bench run`, `probe` or `slice`, never by hand."""
    return work(Path(options.overrides[0]), *options.overrides[1:])


def _show(overrides: Sequence[str]) -> int:
    plain = compose_plain(overrides)
    load(plain)
    sys.stdout.write(yaml.safe_dump(plain, sort_keys=False))
    return ExitCode.OK


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": run,
    "probe": probe,
    "slice": slice_target,
    "sweep": sweep,
    "submit": submit,
    "predict": predict,
    "plan": plan,
    "decide": decide,
    "report": report,
    "backtest": backtest,
    "fit-priors": fit_priors,
    "trace": trace,
    "lab": commands.lab,
    "compare": commands.compare,
    "rerun": commands.rerun,
    "bundle": commands.bundle,
    "table": commands.table,
    "doctor": commands.doctor,
    "worker": worker,
    "completion": completion,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see bench --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bench", description=bench.__doc__, epilog=_epilog(), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", help="what to do: " + ", ".join(f"{verb} ({_summary(verb)})" for verb in VERBS if verb != "worker"))
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="group=option, or any key of the composed configuration; runs, for compare and rerun",
    )
    parser.add_argument("--cfg", action="store_true", help="print the composed configuration and do nothing else")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON, not as tables")
    parser.add_argument("--quiet", action="store_true", help="no progress on the standard error")
    parser.add_argument("--force", action="store_true", help="compare: unlike runs too")
    parser.add_argument("--version", action="version", version=f"proxybench {bench.__version__}")
    return parser


def _summary(verb: str) -> str:
    return (VERBS[verb].__doc__ or "").splitlines()[0].rstrip(".").lower()


def reference() -> str:
    """The page of every verb, group and key, in Markdown."""
    verbs = {name: (verb.__doc__ or "").splitlines()[0] for name, verb in VERBS.items() if name != "worker"}
    return reference_page(verbs, groups(), keys())


def _epilog() -> str:
    lines = [f"  {name:<11} {', '.join(options)}" for name, options in groups().items()]
    return "\n".join(["groups and their options:", *lines, "", "example: bench run model=tiny device=cpu measure.steps=20 out=/some/dir"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; every expected error is one line on the standard error."""
    try:
        with _listening():
            options = _parser().parse_intermixed_args(arguments)
            verb = VERBS.get(options.verb)
            if verb is None:
                known = ", ".join(v for v in VERBS if v != "worker")
                raise UsageError(f"no verb '{options.verb}'{nearest(options.verb, VERBS)} (verbs: {known})")
            with quiet(options.quiet):
                return int(verb(options))
    except BenchError as error:
        tell(f"bench: {' '.join(str(error).splitlines())}")
        return int(error.exit_code)


@contextmanager
def _listening() -> Iterator[None]:
    """Being asked to stop is an error like others inside, except while ranks run: their launcher listens then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is _stop:  # a rank has come to listen in its own way
                signal.signal(number, handler)


def _stop(number: int, _: object) -> NoReturn:
    kind = Interrupted if number == signal.SIGINT else Preempted
    raise kind(f"asked to stop by {signal.Signals(number).name}; run the same command again")
