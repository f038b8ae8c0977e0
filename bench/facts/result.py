"""The whole of a finished run, as it is kept."""

from typing import Any

from bench.facts.figure import fact
from bench.facts.measurement import Environment, Measurement, MeasurementWarning, Survey, Utilization
from bench.facts.prediction import Prediction

SCHEMA_VERSION = 1


@fact
class Measured:
    """What the ranks hand back. `config` is nested as on the command line and has every `auto` resolved."""

    config: dict[str, Any]
    environment: Environment
    survey: Survey
    measurement: Measurement


@fact
class Result:
    """result.json: what was measured, and what it says about other machines."""

    schema_version: int
    run_id: str
    run_dir: str  # as it was when written
    bench_version: str
    config: dict[str, Any]
    environment: Environment
    survey: Survey
    measurement: Measurement
    utilization: Utilization
    projections: tuple[Prediction, ...]
    not_projected: tuple[str, ...]  # a sentence for every cluster that the target does not fit on or does not run on
    warnings: tuple[MeasurementWarning, ...]
    launches: tuple[Measurement, ...] = ()  # each on its own where there were several; one is `measurement` itself
