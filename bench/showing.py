"""What a verb has found, on the standard output: tables for people, JSON for programs."""

import argparse
import sys
from typing import Any

from bench.codec import encode_text
from bench.report.tables import Table
from bench.report.terminal import print_tables


def show(options: argparse.Namespace, found: Any, *tables: Table) -> None:
    """Nothing; the tables are printed, or with --json the typed result that they were made of."""
    if options.json:
        sys.stdout.write(encode_text(found))
    else:
        print_tables(*tables)
