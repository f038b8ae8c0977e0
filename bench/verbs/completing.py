"""The verb that prints the words which a shell completes."""

import argparse
import sys

from bench.config.compose import groups
from bench.config.keys import keys
from bench.errors import ExitCode, UsageError
from bench.grammar import KNOWN, flags
from bench.report.completion import SHELLS, completion_script


def completion(options: argparse.Namespace) -> int:
    """Print a script that lets bash, zsh or fish complete verbs, groups, options and keys."""
    if len(options.overrides) != 1:
        raise UsageError(f"completion: {len(options.overrides)} shells given; it takes one of {', '.join(SHELLS)}")
    sys.stdout.write(completion_script(options.overrides[0], list(KNOWN), flags(), groups(), [key.path for key in keys()]))
    return ExitCode.OK
