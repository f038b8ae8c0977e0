"""The command line: one verb, key=value overrides, one line for every error."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import yaml

import bench
from bench import api
from bench.codec import nearest
from bench.config.compose import compose_plain, groups, load
from bench.errors import BenchError, ExitCode, UsageError
from bench.report.tables import measured_table, projected_table
from bench.report.terminal import print_tables, tell
from bench.worker import work


def run(options: argparse.Namespace) -> int:
    """Measure a training run here and project it to the clusters."""
    if options.cfg:
        plain = compose_plain(options.overrides)
        load(plain)
        sys.stdout.write(yaml.safe_dump(plain, sort_keys=False))
        return ExitCode.OK
    result = api.run(*options.overrides)
    if not result.run_dir:
        return ExitCode.OK  # a rank that somebody else started: rank 0 tells
    projected = [projected_table(result.projections, result.not_projected)] if result.projections or result.not_projected else []
    print_tables(measured_table(result), *projected)
    tell(f"kept in {result.run_dir}")
    return ExitCode.OK


def worker(options: argparse.Namespace) -> int:
    """One rank of a run; started by `bench run`, never by hand."""
    return work(Path(options.overrides[0]))


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {"run": run, "worker": worker}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see bench --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bench", description=bench.__doc__, epilog=_epilog(), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", help="what to do: " + ", ".join(f"{verb} ({_summary(verb)})" for verb in VERBS if verb != "worker"))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="group=option, or any key of the composed configuration")
    parser.add_argument("--cfg", action="store_true", help="print the composed configuration and do nothing else")
    parser.add_argument("--version", action="version", version=f"proxybench {bench.__version__}")
    return parser


def _summary(verb: str) -> str:
    return (VERBS[verb].__doc__ or "").splitlines()[0].rstrip(".").lower()


def _epilog() -> str:
    lines = [f"  {name:<11} {', '.join(options)}" for name, options in groups().items()]
    return "\n".join(["groups and their options:", *lines, "", "example: bench run model=tiny device=cpu measure.steps=20 out=/some/dir"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; every expected error is one line on the standard error."""
    try:
        options = _parser().parse_intermixed_args(arguments)
        verb = VERBS.get(options.verb)
        if verb is None:
            raise UsageError(
                f"no verb '{options.verb}'{nearest(options.verb, VERBS)} (verbs: {', '.join(v for v in VERBS if v != 'worker')})"
            )
        return int(verb(options))
    except BenchError as error:
        tell(f"bench: {error}")
        return int(error.exit_code)
    except KeyboardInterrupt:
        tell("bench: interrupted; nothing was kept")
        return int(ExitCode.INTERRUPTED)
