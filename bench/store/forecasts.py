"""Predictions and plan searches in a run directory."""

from pathlib import Path

from bench.codec import decode_text, encode_text
from bench.facts.figure import fact
from bench.facts.prediction import PlanSearch, Prediction
from bench.facts.scaling import ScalingCurve
from bench.store.results import write_whole

FORECAST = "prediction.json"
PLANS = "plans.json"


@fact
class Forecast:
    """prediction.json."""

    schema_version: int
    projections: tuple[Prediction, ...]
    scaling: tuple[ScalingCurve, ...] = ()  # of every cluster that the target fits, weak and strong


@fact
class Plans:
    """plans.json."""

    schema_version: int
    searches: tuple[PlanSearch, ...]


def write_forecast(run_dir: Path, projections: tuple[Prediction, ...], scaling: tuple[ScalingCurve, ...]) -> None:
    """Nothing; prediction.json holds the predictions and how they scale."""
    write_whole(run_dir / FORECAST, encode_text(Forecast(schema_version=1, projections=projections, scaling=scaling)))


def write_plans(run_dir: Path, searches: tuple[PlanSearch, ...]) -> None:
    """Nothing; plans.json holds the searches."""
    write_whole(run_dir / PLANS, encode_text(Plans(schema_version=1, searches=searches)))


def read_plans(run_dir: Path) -> tuple[PlanSearch, ...]:
    """The searches that a run directory holds. Raises UsageError where it holds none that can be read."""
    return decode_text(Plans, (run_dir / PLANS).read_bytes()).searches
