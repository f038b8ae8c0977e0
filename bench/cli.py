"""The command line: one verb, key=value overrides, one line for every error."""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import yaml

from bench.codec import nearest
from bench.config.compose import compose_plain, load
from bench.errors import BenchError, ExitCode, Interrupted, Preempted, UsageError
from bench.grammar import KNOWN, VERBS, parser
from bench.on_demand import on_demand
from bench.report.terminal import quiet, tell


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; every expected error is one line on the standard error."""
    try:
        with _listening():
            options = parser().parse_intermixed_args(arguments)
            verb = VERBS.get(options.verb)
            if verb is None:
                raise UsageError(f"no verb '{options.verb}'{nearest(options.verb, VERBS)} (verbs: {', '.join(KNOWN)})")
            if options.cfg and verb.composes:
                return _show(options.overrides)
            with quiet(options.quiet):
                return int(on_demand(f"bench.verbs.{verb.module}", verb.function)(options))
    except BenchError as error:
        tell(f"bench: {' '.join(str(error).splitlines())}")
        return int(error.exit_code)


def _show(overrides: Sequence[str]) -> int:
    plain = compose_plain(overrides)
    load(plain)
    sys.stdout.write(yaml.safe_dump(plain, sort_keys=False))
    return ExitCode.OK


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
