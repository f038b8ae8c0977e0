"""Memory against an open sweep of plans: 1,027 runs with the memory that their first stage reserved, 372 that ran out of memory.

Of the constants only five are fitted to these rows (bench.cost.stack_memory). They are fitted again here, to all rows and to those of one
model size alone, scored on the other. Balanced accuracy is the mean of the shares of runs and of failures that are told right.
"""

from dataclasses import dataclass, replace
from functools import cache
from math import erf
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bench.accuracy import memory_accuracy
from bench.backtest import device_names, predict_rows
from bench.codec import decode_text
from bench.config.compose import conf_dir, load_prior
from bench.cost import row_memory as rows_of_memory
from bench.cost.row_memory import RowMemory, row_memory
from bench.cost.stack_memory import CONTEXT_BYTES, EAGER, NEED_LOG_SD, StackMemory
from bench.facts.accuracy import Accuracy
from bench.facts.units import GIB
from bench.report.accuracy_tables import accuracy_tables
from bench.report.markdown import markdown_table
from bench.store.published import setup_of, shipped_failures, shipped_rows

KEPT = Path(__file__).parent / "accuracy.json"
PAGE = Path(__file__).parents[2] / "docs" / "accuracy.md"
Array = npt.NDArray[np.float64]
# (fitted to the larger model, least verdicts on the other, largest errors of reserved memory on the other). Reached: 0.968 and 0.846,
# 8.7 and 29.2 %; the other way 0.937 and 0.813, 4.4 and 17.7 %. The aim is 0.95 and 0.85, 10 and 25 %: missed at the smaller model
# near the limit and in the 90th percentile, at the larger one in both verdicts, since hardly any plan of the smaller model needs
# between 68 and 75 GiB, where the verdict turns.
SIZE_REACH = [(True, (0.96, 0.84), (0.10, 0.30)), (False, (0.93, 0.81), (0.05, 0.18))]


@dataclass(frozen=True)
class Sweep:
    """What is known of every run and every failure; bytes in GiB."""

    reserved: Array  # observed
    held: Array  # of the first stage, without what waits and without overhead
    waiting: Array  # of the first stage, for one waiting byte
    need_held: Array  # of the fullest stage, of runs
    failed_held: Array  # of the fullest stage, of failures
    large: npt.NDArray[np.bool_]  # runs of the larger model
    failed_large: npt.NDArray[np.bool_]
    capacity: float


def held_by(stack: StackMemory, cells: list[dict[str, str]]) -> list[RowMemory]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_of_memory, "stack_memory", lambda _: stack)
        return [row_memory(setup_of(row), device_names()) for row in cells]


@cache
def runs() -> list[dict[str, str]]:
    return [row for row in shipped_rows() if row["kind"] == "sweep" and row["peak_reserved_gb"]]


@cache
def sweep() -> Sweep:
    bare = replace(EAGER, waiting_bytes=0, reserved_fraction=0, reserved_bytes=0)
    held = np.array([one.reserved_bytes for one in held_by(bare, runs())]) / GIB
    with_one = np.array([one.reserved_bytes for one in held_by(replace(bare, waiting_bytes=1), runs())]) / GIB
    fullest, failed = ([one.fullest for one in held_by(EAGER, cells)] for cells in (runs(), shipped_failures()))
    return Sweep(
        reserved=np.array([float(row["peak_reserved_gb"]) for row in runs()]),
        held=held,
        waiting=with_one - held,
        need_held=np.array([one.state_bytes + one.activation_bytes for one in fullest]) / GIB,
        failed_held=np.array([one.state_bytes + one.activation_bytes for one in failed]) / GIB,
        large=np.array([row["n_layers"] == "32" for row in runs()]),
        failed_large=np.array([row["n_layers"] == "32" for row in shipped_failures()]),
        capacity=fullest[0].capacity_bytes / GIB,
    )


def fit_reserved(chosen: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """(waiting_bytes, reserved_fraction, reserved_bytes in GiB) of least absolute relative error, by reweighted least squares."""
    s = sweep()
    columns = np.array([s.waiting, s.held, np.ones_like(s.held)]).T[chosen] / s.reserved[chosen, None]
    weight = np.ones(len(columns))
    for _ in range(100):
        found = np.linalg.lstsq(columns * weight[:, None], weight, rcond=None)[0]
        weight = 1 / np.sqrt(np.maximum(abs(columns @ found - 1), 0.02))
    return float(found[0] / found[1]), float(found[1] - 1), float(found[2])


def fit_need(chosen: npt.NDArray[np.bool_], failed: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """(need_fraction, log sd) of greatest likelihood on a grid of hundredths, runs and failures weighing alike."""
    s = sweep()
    grid = [(fraction / 100, sd / 100) for fraction in range(41) for sd in range(4, 30)]

    def likelihood(fraction: float, sd: float) -> float:
        fits = chances(s.need_held[chosen], fraction, sd)
        fails = 1 - chances(s.failed_held[failed], fraction, sd)
        return float(np.log(np.maximum(fits, 1e-300)).mean() + np.log(np.maximum(fails, 1e-300)).mean())

    return max(grid, key=lambda point: likelihood(*point))


def chances(held: Array, fraction: float, sd: float) -> Array:
    distance = np.log(sweep().capacity / needs(held, fraction)) / sd
    return np.array([0.5 * (1 + erf(x / np.sqrt(2))) for x in distance])


def needs(held: Array, fraction: float) -> Array:
    return np.asarray(CONTEXT_BYTES / GIB + (1 + fraction) * held)


def verdicts(fraction: float, chosen: npt.NDArray[np.bool_], failed: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Balanced accuracy of fits / does not fit: of all, and where the need predicted is 50 to 110 GiB."""
    ran, died = needs(sweep().need_held[chosen], fraction), needs(sweep().failed_held[failed], fraction)

    def balanced(run: Array, dead: Array) -> float:
        return float(((run <= sweep().capacity).mean() + (dead > sweep().capacity).mean()) / 2)

    near_run, near_dead = (values[(values >= 50) & (values <= 110)] for values in (ran, died))
    return balanced(ran, died), balanced(near_run, near_dead)


def reserved_errors(by: tuple[float, float, float], chosen: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Median and 90th percentile of the relative error of the reserved memory."""
    waiting, fraction, bytes_ = by
    s = sweep()
    guess = (s.held + waiting * s.waiting) * (1 + fraction) + bytes_
    errors = abs(guess / s.reserved - 1)[chosen]
    return float(np.median(errors)), float(np.quantile(errors, 0.9))


def everything() -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    return np.ones(len(sweep().large), dtype=bool), np.ones(len(sweep().failed_large), dtype=bool)


def test_the_sweep_is_all_there() -> None:
    assert (len(runs()), len(shipped_failures())) == (1027, 372)


def test_fits_or_not_is_told_for_nineteen_in_twenty() -> None:
    """0.976 of all, 0.885 where the need predicted lies between 50 and 110 GiB."""
    assert memory_accuracy().balanced >= 0.95
    assert memory_accuracy().balanced_near_limit >= 0.85


def test_reserved_memory_is_within_a_tenth() -> None:
    """6.5 % in the median, 20.5 % at the 90th percentile."""
    assert memory_accuracy().reserved.median <= 0.10
    assert memory_accuracy().reserved.p90 <= 0.25


def test_runs_tuned_to_the_memory_need_about_all_of_it() -> None:
    """Rows whose memory nobody told, of another stack and device: 0.97 in the median, where 0.5 to 1 is what such tuning leaves."""
    rows = [setup_of(row) for row in shipped_rows() if row["id"].startswith("foundry-")]
    fullest = [row_memory(setup, device_names()).fullest for setup in rows]
    assert len(rows) > 200
    assert 0.85 <= np.median([one.total_bytes / one.capacity_bytes for one in fullest]) <= 1.05


def test_the_page_tells_what_the_test_finds() -> None:
    score = replace(decode_text(Accuracy, KEPT.read_bytes()), memory=memory_accuracy())
    assert markdown_table(accuracy_tables(score)[2]) in PAGE.read_text(), "bench backtest out=docs/accuracy.md makes the page anew"


def test_the_shipped_constants_come_out_of_the_sweep() -> None:
    every, failed = everything()
    waiting, fraction, bytes_ = fit_reserved(every)
    assert waiting == pytest.approx(EAGER.waiting_bytes, abs=0.005)
    assert fraction == pytest.approx(EAGER.reserved_fraction, abs=5e-5)
    assert bytes_ * GIB == pytest.approx(EAGER.reserved_bytes, abs=5e-4 * GIB)
    assert fit_need(every, failed) == (EAGER.need_fraction, NEED_LOG_SD)


@pytest.mark.parametrize(("by_large", "verdict", "reserved"), SIZE_REACH)
def test_one_model_size_tells_the_other(by_large: bool, verdict: tuple[float, float], reserved: tuple[float, float]) -> None:
    s = sweep()
    seen, seen_failed = (s.large, s.failed_large) if by_large else (~s.large, ~s.failed_large)
    of_all, near = verdicts(fit_need(seen, seen_failed)[0], ~seen, ~seen_failed)
    median, p90 = reserved_errors(fit_reserved(seen), ~seen)
    assert of_all >= verdict[0]
    assert near >= verdict[1]
    assert median <= reserved[0]
    assert p90 <= reserved[1]


def test_a_middling_chance_is_a_middling_chance() -> None:
    """Runs and failures weigh alike: of those given 20 to 80 %, the mean chance is the share that fitted, within 15 points."""
    fits, fails = (chances(held, EAGER.need_fraction, NEED_LOG_SD) for held in (sweep().need_held, sweep().failed_held))
    weights = np.concatenate([np.full(len(fits), 1 / len(fits)), np.full(len(fails), 1 / len(fails))])
    told, ran = np.concatenate([fits, fails]), np.concatenate([np.ones(len(fits)), np.zeros(len(fails))])
    middling = (told > 0.2) & (told < 0.8)
    assert middling.sum() > 80
    assert np.average(told[middling], weights=weights[middling]) == pytest.approx(
        np.average(ran[middling], weights=weights[middling]), abs=0.15
    )


def test_a_table_of_rows_tells_reserved_memory_and_the_verdict() -> None:
    prior = load_prior(conf_dir() / "prior" / "published.yaml")
    ran, died = predict_rows([runs()[0], max(shipped_failures(), key=lambda row: int(row["micro_batch"]))], [], prior)
    assert ran.reserved_bytes == pytest.approx(float(runs()[0]["peak_reserved_gb"]) * GIB, rel=0.2)
    assert (ran.fits, died.fits) == (True, False)
    assert ran.fits_probability is not None
    assert died.fits_probability is not None
    assert ran.fits_probability > 0.9
    assert died.fits_probability < 0.1
