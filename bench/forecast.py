"""The verbs that predict: one target or a table of rows, the plan search, the back-test and the fit behind them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.accuracy import accuracy, composed, fitted_prior
from bench.backtest import predict_rows, published_rows
from bench.config.compose import compose, conf_dir, devices, find_device
from bench.config.profiles import find_profile
from bench.config.schema import Config
from bench.cost.calibrate import Calibration, calibrate, usual_site
from bench.cost.extrapolate import project
from bench.cost.observation import Observed
from bench.cost.plans import plan_search
from bench.cost.posterior import condition
from bench.cost.probed import from_profile
from bench.cost.scaling import scaling_curves
from bench.cost.sliced import from_slice
from bench.cost.whatif import what_if
from bench.errors import DoesNotFit, UsageError
from bench.facts.accuracy import Accuracy, Composed
from bench.facts.hardware import Cluster, Device
from bench.facts.measurement import Measurement
from bench.facts.prediction import PlanSearch, Prediction, Prior
from bench.facts.profile import DeviceProfile, SliceMeasurement
from bench.facts.published import RowPrediction
from bench.facts.scaling import ScalingCurve, WhatIf
from bench.report.accuracy_tables import accuracy_page, composed_page
from bench.report.terminal import tracked
from bench.store.forecasts import write_forecast, write_plans
from bench.store.priors import prior_text
from bench.store.profiles import read_profile, read_slice
from bench.store.published import predictions_text, read_rows
from bench.store.results import make_run_dir, read_result, write_file


def predict(*overrides: str) -> tuple[tuple[Prediction, ...], tuple[ScalingCurve, ...], tuple[str, ...], Path]:
    """Predictions of the target on every cluster, how it scales there, what could not be predicted, and the directory that keeps them.

    `result=RUN` adds what a run has measured, `profile=RUN` and `slices=[RUN]` what parts of a device have.
    Raises UsageError before anything is written, and DoesNotFit where the target runs on none of the clusters.
    """
    config = compose(overrides)
    measurement = read_result(Path(config.result)).measurement if config.result else None
    done, left_out = projections(config, measurement)
    if not done:
        raise DoesNotFit("; ".join(left_out))
    predicted = {prediction.cluster for prediction in done}
    scaling = tuple(curve for curve in scalings(config, measurement) if curve.cluster in predicted)
    run_dir = make_run_dir(config.out, "predict")
    write_forecast(run_dir, done, scaling)
    return done, scaling, left_out, run_dir


def projections(config: Config, measurement: Measurement | None) -> tuple[tuple[Prediction, ...], tuple[str, ...]]:
    """A prediction for every cluster that the target fits on, and a sentence for every other."""
    done: list[Prediction] = []
    left_out: list[str] = []
    for cluster, calibration in tracked(calibrations(config, measurement), "projecting", _cluster_name):
        rental = config.price.rental_usd_per_device_hour.get(cluster.device.name)
        try:
            done.append(project(config.target, cluster, calibration, config.stack, rental))
        except DoesNotFit as error:
            left_out.append(f"{cluster.name}: {error}")
    return tuple(done), tuple(left_out)


def scalings(config: Config, measurement: Measurement | None) -> tuple[ScalingCurve, ...]:
    """How the target scales over the devices of every cluster."""
    known = tracked(calibrations(config, measurement), "scaling", _cluster_name)
    curves = (scaling_curves(config.target, cluster, config.stack, calibration.posterior) for cluster, calibration in known)
    return tuple(curve for both in curves for curve in both)


def what_ifs(config: Config, measurement: Measurement | None) -> tuple[WhatIf, ...]:
    """A grid of every cluster that the target fits: parts of it, slower and faster links."""
    known = tracked(calibrations(config, measurement), "other sizes and links", _cluster_name)
    grids = (what_if(config.target, cluster, config.stack, calibration.posterior) for cluster, calibration in known)
    return tuple(grid for grid in grids if grid)


def calibrations(config: Config, measurement: Measurement | None) -> list[tuple[Cluster, Calibration]]:
    """Every cluster with the stack as far as it is known there, by a run and by profiles and slices."""
    device = find_device(measurement.device_name) if measurement else None
    given = read_profile(Path(config.profile)) if config.profile else None
    slices = [read_slice(Path(path)) for path in config.slices]
    known = []
    for cluster in config.clusters:
        observed = observed_of(config.prior, cluster, profiles_of(cluster.device, given), slices)
        known.append((cluster, calibrate(config.prior, measurement, device, cluster, observed)))
    return known


def _cluster_name(known: tuple[Cluster, Calibration]) -> str:
    return known[0].name


def observed_of(prior: Prior, cluster: Cluster, profiles: Sequence[DeviceProfile], slices: Sequence[SliceMeasurement]) -> Observed:
    """What profiles and slices tell of a cluster's device."""
    told = Observed()
    for profile in profiles:
        told += from_profile(prior, profile, find_device(profile.device_name), cluster)
    for measured in slices:
        told += from_slice(prior, measured, find_device(measured.device_name), cluster.device)
    return told


def profiles_of(device: Device, given: DeviceProfile | None) -> tuple[DeviceProfile, ...]:
    """The profile given, and where it tells nothing of the device the latest in conf/device/profile of its chip, its own first."""
    profiled = find_device(given.device_name) if given else None
    if given and profiled and profiled.has_chip_of(device):
        return (given,)
    alike = sorted((other for other in devices() if other.has_chip_of(device)), key=lambda other: other.name != device.name)
    kept = (find_profile(name) for other in alike for name in other.torch_names)
    found = (given, next((profile for profile in kept if profile), None))
    return tuple(profile for profile in found if profile)


def predict_table(*overrides: str) -> tuple[list[RowPrediction], str]:
    """The prediction of every row of a table, and its CSV text; also written to `out` where that is given."""
    config = compose(overrides)
    if not config.rows:
        raise UsageError("rows: is empty; give a CSV file with columns as in bench backtest's own table")
    measured = read_rows(Path(config.calibration)) if config.calibration else []
    predicted = predict_rows(read_rows(Path(config.rows)), measured, config.prior)
    text = predictions_text(predicted)
    if config.out:
        write_file(Path(config.out), text)
    return predicted, text


def plan(*overrides: str) -> tuple[tuple[PlanSearch, ...], Path]:
    """The plan search of the target on every cluster, and the directory that keeps it. Raises DoesNotFit where a cluster has no plan."""
    config = compose(overrides)
    posterior = condition(config.prior, None)
    found = tuple(plan_search(config.target, c, config.stack, posterior) for c in tracked(config.clusters, "searching", lambda c: c.name))
    run_dir = make_run_dir(config.out, "plan")
    write_plans(run_dir, found)
    return found, run_dir


def backtest(*overrides: str) -> Accuracy | Composed:
    """The score on published runs, each source left out; its page is written to `out` where that is given.

    `protocol=slices` takes the runs on devices of which `profile=RUN` or `slices=[RUN]` tell, or else a kept profile.
    """
    config = compose(overrides)
    each = partial(tracked, phase="fitting without")
    if config.protocol == "published":
        score: Accuracy | Composed = accuracy(each)
    else:
        slices = [read_slice(Path(path)) for path in config.slices]
        score = composed(_parts_of(config, slices), config.prior, each, [measured.spec for measured in slices])
    if config.out:
        write_file(Path(config.out), accuracy_page(score) if isinstance(score, Accuracy) else composed_page(score))
    return score


def _parts_of(config: Config, slices: Sequence[SliceMeasurement]) -> Callable[[Prior, Device], Observed]:
    """What the profile of a configuration and slices tell of a device."""
    given = read_profile(Path(config.profile)) if config.profile else None
    known = {device.name: profiles_of(device, given) for device in devices()}
    return lambda prior, device: observed_of(prior, usual_site(device, device.scale_up_domain), known.get(device.name, ()), slices)


def fit_priors(*overrides: str) -> Path:
    """Where the prior fitted to the published runs has been written: `out`, or its place in conf/."""
    config = compose(overrides)
    file = Path(config.out) if config.out else conf_dir() / "prior" / "published.yaml"
    prior, _ = fitted_prior(published_rows(), partial(tracked, phase="fitting without"))
    write_file(file, prior_text(prior))
    return file


def is_table(overrides: Sequence[str]) -> bool:
    """Whether a command line asks for a table of rows."""
    return any(override.startswith("rows=") for override in overrides)
