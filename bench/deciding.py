"""The verb that decides: step times of every option from the predictor, chances drawn with a fixed seed, the answer kept."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.config.compose import compose_plain, load
from bench.config.schema import Config
from bench.cost.decision import assumptions, break_even_flops, crossing, option_forecast, rent_break_even, tornado
from bench.cost.draws import interval_of
from bench.cost.extrapolate import project
from bench.cost.layout import Array
from bench.cost.option import Entry, failures_per_day, goodput_of, saving_of
from bench.errors import UsageError
from bench.facts.decision import Decision, OptionForecast, Rent
from bench.facts.figure import Interval
from bench.facts.hardware import Cluster
from bench.facts.measurement import Measurement
from bench.facts.model import Target
from bench.facts.prediction import Prediction
from bench.facts.reliability import RecoveryKind
from bench.facts.scenario import Option, Scenario
from bench.facts.units import SECONDS_PER_DAY
from bench.forecast import calibrations
from bench.report.decision_page import decision_page
from bench.report.decision_tables import decision_report
from bench.report.terminal import tracked
from bench.simulation import Hazard, simulated_fractions
from bench.store.decisions import DECISION, write_decision
from bench.store.results import make_run_dir, read_result, refuse_to_overwrite, write_config

SCHEMA_VERSION = 1
N_SIMULATED = 100  # runs of an option; their mean is known ten times better than they scatter
SIMULATED_DAYS = 30.0
COMMON_CAUSE = "software stack"  # of a prediction's variance: what all options share
SAME_DEVICE_CAUSE = "compute efficiency"  # and what those on one kind of device do


def decide(*overrides: str) -> tuple[Decision, Path]:
    """The decision of a scenario and the directory that keeps it. `result=RUN`, `profile=RUN` and `slices=[RUN]` add what was measured.

    Raises UsageError where no scenario is given, and DoesNotFit where an option has no room for the target.
    """
    plain = compose_plain(overrides)
    config = load(plain)
    if config.scenario is None:
        raise UsageError("scenario: none given; choose scenario=memphis_100k_h100 or experiment=rent_or_build, see bench --help")
    measurement = read_result(Path(config.result)).measurement if config.result else None
    decision = decision_of(config, config.scenario, measurement)
    run_dir = make_run_dir(config.out, "decide")
    refuse_to_overwrite(run_dir, DECISION)
    write_config(run_dir, plain)
    write_decision(run_dir, decision, decision_report(decision), decision_page(decision))
    return decision, run_dir


def decision_of(config: Config, scenario: Scenario, measurement: Measurement | None) -> Decision:
    """The options worked out and held against one another."""
    options = tracked(tuple(scenario.options.values()), "options", lambda option: option.name)
    entries = with_common_share([entry_of(config, option, measurement) for option in options])
    scores = drawn(assumptions(entries), scenario.n_samples, scenario.seed)
    simulating = tracked(entries, "simulating", lambda entry: entry.option.name)
    forecasts = tuple(option_forecast(entry, scenario, scores, simulated(entry, scenario.seed)) for entry in simulating)
    by_name = {key: (entry, done) for key, entry, done in zip(scenario.options, entries, forecasts, strict=True)}
    told = [p for entry in entries for p in entry.predictions]
    pair = (by_name[scenario.first], by_name[scenario.second]) if scenario.first and scenario.second else None
    return Decision(
        schema_version=SCHEMA_VERSION,
        scenario=scenario.name,
        target=config.target.name,
        work_flops=scenario.work_flops.value,
        work_tokens=scenario.work_flops.value / entries[0].flops_per_token,
        options=forecasts,
        crossing=crossing(pair[0][0], pair[1][0], scenario, scores) if pair else None,
        break_even_flops=break_even_flops(pair[0][0], pair[1][0], scenario) if pair else None,
        tornado=tornado(pair[0][0], pair[1][0], scenario) if pair else (),
        rent=_rent(pair[0], pair[1]) if pair else None,
        told=tuple(dict.fromkeys(text for p in told for text in p.told)),
        not_told=tuple(dict.fromkeys(text for p in told for text in p.not_told)),
    )


def _rent(first: tuple[Entry, OptionForecast], second: tuple[Entry, OptionForecast]) -> Rent | None:
    rental = first[0].option.rental
    return rent_break_even(first[1], second[1], rental.usd_per_device_hour.value) if rental else None


def entry_of(config: Config, option: Option, measurement: Measurement | None) -> Entry:
    """An option with the predictions of its clusters. Raises DoesNotFit where the target has no room on one."""
    clusters, n_sites = merged(option), option.wide_area.n_sites if option.wide_area else 1
    whole = sum(cluster.n_devices for cluster in clusters)
    predictions: list[Prediction] = []
    for cluster in clusters:
        of_site = replace(cluster, n_nodes=max(1, cluster.n_nodes // n_sites))
        predictions.append(_predicted(config, of_site, _share(config.target, of_site.n_devices / whole), measurement))
    return Entry(
        option=option,
        target=config.target,
        predictions=tuple(predictions),
        rated_w=tuple(cluster.device.power_w.value for cluster in clusters),
        measured_w=tuple(measured_w(cluster, measurement) for cluster in clusters),
        common_share=0.0,
    )


def merged(option: Option) -> tuple[Cluster, ...]:
    """The option's clusters, groups of equal devices and links as one."""
    found: dict[tuple[object, ...], Cluster] = {}
    for group in option.groups.values():
        c = group.cluster
        kind = (c.device.name, c.devices_per_node, c.scale_up, c.scale_out, c.oversubscription.value, c.reduces_in_network)
        found[kind] = replace(found[kind], n_nodes=found[kind].n_nodes + c.n_nodes) if kind in found else replace(c, name=option.name)
    return tuple(found.values())


def _share(target: Target, share: float) -> Target:
    """The target with its part of the largest batch, so that all parts together do not exceed it."""
    most = target.max_global_batch_size
    return replace(target, max_global_batch_size=replace(most, value=max(1.0, most.value * share)))


def _predicted(config: Config, cluster: Cluster, target: Target, measurement: Measurement | None) -> Prediction:
    (_, calibration), *_ = calibrations(replace(config, cluster=cluster), measurement)
    return project(target, cluster, calibration, config.stack, None)


def measured_w(cluster: Cluster, measurement: Measurement | None) -> float | None:
    """Mean power of one device in the run, where it ran on the cluster's kind and told."""
    told = measurement.telemetry if measurement else None
    if measurement is None or told is None or told.power_w is None or measurement.device_name not in cluster.device.torch_names:
        return None
    return told.power_w / measurement.world_size


def with_common_share(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with the share of their predictions' variance that they have in common."""
    same = len({device for entry in entries for device in (g.cluster.device.name for g in entry.option.groups.values())}) == 1
    names = (COMMON_CAUSE, SAME_DEVICE_CAUSE) if same else (COMMON_CAUSE,)
    shares = [sum(c.share for c in p.uncertainty if c.cause in names) for entry in entries for p in entry.predictions]
    return [replace(entry, common_share=min(shares)) for entry in entries]


def drawn(names: Sequence[str], n_samples: int, seed: int) -> dict[str, Array]:
    """Standard normal scores of every assumption, from a fixed seed."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(n_samples) for name in names}


def simulated(entry: Entry, seed: int) -> Interval | None:
    """The effective fraction of a month by simulation, at the median rates; None for what is not simulated or gets nowhere."""
    good, recovery = goodput_of(entry), entry.option.recovery
    if good.infeasible or recovery.kind is RecoveryKind.REPLICA:
        return None
    nodes, job = (float(x[0]) for x in failures_per_day(entry, {}))
    hazard = Hazard(
        mtbf_s=good.mtbf_s,
        downtime_s=good.downtime_s,
        hardware_fraction=nodes / (nodes + job),
        repair_s=recovery.repair_s.value,
        n_spares=int(recovery.spare_fraction.value * good.n_nodes),
    )
    wall = SIMULATED_DAYS * SECONDS_PER_DAY
    return interval_of(simulated_fractions(good.interval_s, saving_of(entry), hazard, wall_s=wall, n_samples=N_SIMULATED, seed=seed))
