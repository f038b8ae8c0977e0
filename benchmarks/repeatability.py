"""Whether the interval of a measurement holds what repeating it finds.

    python benchmarks/repeatability.py [model=dense_5m measure.launches=5 tries=3 ...]

A try is the same measurement five times, of three launches each: at least four of the five 95 % intervals are to hold the mean of
all. The launches of the five are taken in turn, so that a machine which drifts over minutes drifts for all of them. An interval of
one launch (measure.launches=1) is that of its own steps and promises less: on a shared machine the mean of five seconds moves by
some per cent within minutes, which no step of those seconds can tell. The result files are not kept.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from bench import api
from bench.facts.measurement import Estimate

REPEATS = 5
WANTED = 4
TRIES = 3
FIXED = ("model=tiny", "device=cpu", "train.micro_batch_size=4", "train.precision=fp32", "cluster=oracle_24k_h100")
FIXED += ("measure.steps=60", "measure.warmup_max_steps=12", "measure.breakdown_steps=0", "measure.launches=3")


def repeated(overrides: Sequence[str], folder: Path) -> list[Estimate]:
    """Tokens/s of the same measurement, so many times, their launches in turn."""
    jobs = [(*FIXED, *overrides, f"out={folder}/{i}") for i in range(REPEATS)]
    return [result.measurement.tokens_per_s for result in api.run_in_turn(*jobs)]


def one_try(overrides: Sequence[str]) -> int:
    """How many of the intervals hold the mean of all; prints a row for each measurement."""
    with tempfile.TemporaryDirectory() as folder:
        estimates = repeated(overrides, Path(folder))
    pooled = fmean(e.value for e in estimates)
    holds = [e.low <= pooled <= e.high for e in estimates]
    for e, held in zip(estimates, holds, strict=True):
        word = "holds" if held else "misses"
        print(
            f"{e.value:>10,.0f} {e.low:>10,.0f} {e.high:>10,.0f} {e.half_width_fraction:>7.1%} {e.n_steps:>6} steps  {word} {pooled:,.0f}"
        )
    return sum(holds)


def main(arguments: Sequence[str]) -> None:
    """Nothing; prints every measurement, and how many held in every try."""
    overrides = [a for a in arguments if not a.startswith("tries=")]
    n_tries = int(next((a.removeprefix("tries=") for a in arguments if a.startswith("tries=")), TRIES))
    print(f"{'tokens/s':>10} {'low':>10} {'high':>10} {'+-':>7}")
    held = []
    for k in range(n_tries):
        held.append(one_try(overrides))
        print(f"try {k + 1}: {held[-1]} of {REPEATS} hold the mean of all\n", flush=True)
    print(f"tries with at least {WANTED} of {REPEATS}: {sum(n >= WANTED for n in held)} of {n_tries}")


if __name__ == "__main__":
    main(sys.argv[1:])
