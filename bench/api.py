"""The verbs as library calls, with typed results."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench
from bench.config.compose import compose_plain, find_device, load
from bench.config.resolve import resolve_batch, resolve_plan
from bench.config.schema import Config
from bench.cost.calibrate import calibrate
from bench.cost.extrapolate import project
from bench.cost.utilization import utilization
from bench.errors import DoesNotFit, InvalidMeasurement
from bench.facts.hardware import Cluster, Device
from bench.facts.measurement import Measurement, Utilization
from bench.facts.prediction import Prediction
from bench.facts.result import SCHEMA_VERSION, Measured, Result
from bench.report.markdown import markdown_report
from bench.report.terminal import terminal_progress
from bench.run.devices import find_backend, find_world_size, n_cores
from bench.run.launch import RankPlace, find_place, launch_ranks
from bench.store import results
from bench.worker import measure


def run(*overrides: str) -> Result:
    """The result of the main job: measure here, project to the clusters; also written to the run directory.

    `overrides` are those of the command line, such as "model=tiny". Inside ranks that somebody else has started it is
    called on every one of them, returns the same on all, and rank 0 writes.
    Raises UsageError before anything runs, and InvalidMeasurement after the result has been written.
    """
    plain = compose_plain(overrides)
    config = load(plain)
    place = find_place(os.environ)
    run_dir = None if place and place.rank > 0 else results.make_run_dir(config.out, config.name)
    measured = _measure_as_rank(config, place) if place else _measure_from_launcher(config, plain, run_dir)
    result = _result(measured, run_dir)
    if run_dir:
        results.write_steps(run_dir, result.measurement)
        results.write_whole(run_dir / results.REPORT, markdown_report(result))
        results.write_result(run_dir, result)
    if result.measurement.invalid:
        raise InvalidMeasurement(
            f"not a training speed: {'; '.join(result.measurement.invalid)}{f'; kept in {run_dir}' if run_dir else ''}"
        )
    return result


def _measure_as_rank(config: Config, place: RankPlace) -> Measured:
    return measure(config, place, terminal_progress() if place.rank == 0 else None)


def _measure_from_launcher(config: Config, plain: dict[str, Any], run_dir: Path | None) -> Measured:
    assert run_dir is not None
    asked = config.device
    backend = find_backend(None if asked.backend == "auto" else asked.backend)
    world_size = find_world_size(backend, None if asked.n_devices == "auto" else asked.n_devices)
    plan = resolve_plan(config.plan, world_size)
    if config.train.micro_batch_size != "auto":
        resolve_batch(config.train, plan.data_parallel_size, config.train.micro_batch_size)
    threads = max(1, n_cores() // world_size) if asked.threads_per_rank == "auto" else asked.threads_per_rank
    results.write_config(run_dir, plain)
    failed = launch_ranks(["worker", str(run_dir)], world_size, threads)
    if failed:
        raise results.failure_of(run_dir, failed)
    return results.take_measured(run_dir)


def _result(measured: Measured, run_dir: Path | None) -> Result:
    config = load(measured.config)
    device = find_device(measured.measurement.device_name)
    measurement, use = _used(measured.measurement, device)
    projections, left_out = _project(config, measurement, device)
    return Result(
        schema_version=SCHEMA_VERSION,
        run_id=run_dir.resolve().name if run_dir else "",
        run_dir=str(run_dir or ""),
        bench_version=bench.__version__,
        config=measured.config,
        environment=measured.environment,
        survey=measured.survey,
        measurement=measurement,
        utilization=use,
        projections=projections,
        not_projected=left_out,
        warnings=measurement.warnings,
    )


def _used(measurement: Measurement, device: Device | None) -> tuple[Measurement, Utilization]:
    """The measurement and its use of the peak; a use above 100 % makes it invalid."""
    try:
        return measurement, utilization(measurement, device)
    except InvalidMeasurement as error:
        return replace(measurement, invalid=(*measurement.invalid, str(error))), utilization(measurement, None)


def _project(config: Config, measurement: Measurement, device: Device | None) -> tuple[tuple[Prediction, ...], tuple[str, ...]]:
    """Projections to every cluster that the target fits on, and a sentence for every other."""
    done: list[Prediction] = []
    left_out: list[str] = []
    for cluster in () if measurement.invalid else config.clusters:
        try:
            done.append(_projection(config, cluster, measurement, device))
        except DoesNotFit as error:
            left_out.append(f"{cluster.name}: {error}")
    return tuple(done), tuple(left_out)


def _projection(config: Config, cluster: Cluster, measurement: Measurement, device: Device | None) -> Prediction:
    calibration = calibrate(config.prior, measurement, device, cluster.device)
    return project(config.target, cluster, calibration, config.price.rental_usd_per_device_hour.get(cluster.device.name))
