"""The words of the command line: verbs and where their functions are, flags, and the page that lists them with all keys."""

import argparse
from typing import NamedTuple, NoReturn

import bench
from bench.config.compose import groups
from bench.config.keys import keys
from bench.errors import UsageError
from bench.report.reference import reference_page


class Verb(NamedTuple):
    """What a verb does, in a sentence, and where its function is: imported when it is asked for, since torch takes seconds to load."""

    summary: str
    module: str  # of bench.verbs
    function: str
    composes: bool = False  # its arguments are overrides and nothing else, so that --cfg can show what they give


VERBS = {
    "run": Verb("Measure a training run here and project it to the clusters.", "measuring", "run", composes=True),
    "probe": Verb("Measure what the devices here and the links between them reach, each alone.", "measuring", "probe", composes=True),
    "slice": Verb("Time one device's share of a layer of the target here.", "measuring", "slice_target", composes=True),
    "sweep": Verb(
        "Measure every combination of what the overrides name; what fails is a row, what was stopped goes on.", "measuring", "sweep"
    ),
    "submit": Verb("Hand the same command to Slurm as a job that survives preemption.", "keeping", "submit", composes=True),
    "predict": Verb("Predict the target on its clusters, or every row of a table.", "predicting", "predict", composes=True),
    "plan": Verb("Search the fastest plan of the target that fits a cluster.", "predicting", "plan", composes=True),
    "decide": Verb(
        "Decide between options that start, cost, fail and draw power differently; or tell all of one system.",
        "predicting",
        "decide",
        composes=True,
    ),
    "report": Verb("Make one page of what run directories hold.", "predicting", "report"),
    "backtest": Verb("Hold the predictor against published runs it was not fitted on.", "predicting", "backtest"),
    "fit-priors": Verb("Fit the predictor's coefficients to the published runs.", "predicting", "fit_priors"),
    "trace": Verb(
        "Count what one rank of the target would send and multiply on n_devices devices, none of them here.",
        "measuring",
        "trace",
        composes=True,
    ),
    "lab": Verb(
        "Build hosts with shaped links here (root), predict how training scales over them, measure it, and tell how far off that was.",
        "measuring",
        "lab",
    ),
    "compare": Verb(
        "Tell whether runs are faster or slower than the first, and what else differed; a gate that trips makes it exit 5.",
        "keeping",
        "compare",
    ),
    "rerun": Verb("Run again from a kept result's own configuration, and compare.", "measuring", "rerun"),
    "bundle": Verb("Put a run directory into one archive without secrets.", "keeping", "bundle"),
    "table": Verb(
        "Print all results below some directories as Markdown or CSV, in the columns of published throughput tables.", "keeping", "table"
    ),
    "doctor": Verb(
        "Look at this machine: devices, links, limits, versions, other programs; what is wrong, and what to do.", "measuring", "doctor"
    ),
    "worker": Verb("One rank; started by `bench run`, `probe` or `slice`, never by hand.", "ranks", "worker"),
    "completion": Verb("Print a script that lets bash, zsh or fish complete verbs, groups, options and keys.", "completing", "completion"),
}
KNOWN = tuple(verb for verb in VERBS if verb != "worker")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see bench --help")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole line; a mistake raises UsageError."""
    made = _Parser(prog="bench", description=bench.__doc__, epilog=_epilog(), formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("verb", help="what to do: " + ", ".join(f"{verb} ({_summary(verb)})" for verb in KNOWN))
    made.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="group=option, or any key of the composed configuration; runs, for compare and rerun",
    )
    made.add_argument("--cfg", action="store_true", help="print the composed configuration and do nothing else")
    made.add_argument("--json", action="store_true", help="print what was found as JSON, not as tables")
    made.add_argument("--quiet", action="store_true", help="no progress on the standard error")
    made.add_argument("--force", action="store_true", help="compare: unlike runs too")
    made.add_argument("--version", action="version", version=f"proxybench {bench.__version__}")
    return made


def _summary(verb: str) -> str:
    return VERBS[verb].summary.rstrip(".").lower()


def flags() -> list[str]:
    """Everything that begins with a dash."""
    return [text for action in parser()._actions for text in action.option_strings]


def reference() -> str:
    """The page of every verb, group and key, in Markdown."""
    return reference_page({name: VERBS[name].summary for name in KNOWN}, groups(), keys())


def _epilog() -> str:
    lines = [f"  {name:<11} {', '.join(options)}" for name, options in groups().items()]
    return "\n".join(["groups and their options:", *lines, "", "example: bench run model=tiny device=cpu measure.steps=20 out=/some/dir"])
