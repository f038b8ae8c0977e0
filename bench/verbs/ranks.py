"""The verb of one rank, apart from the others: what no rank needs is not loaded in each."""

import argparse
from pathlib import Path

from bench.worker import work


def worker(options: argparse.Namespace) -> int:
    """One rank; started by `bench run`, `probe` or `slice`, never by hand."""
    return work(Path(options.overrides[0]), *options.overrides[1:])
