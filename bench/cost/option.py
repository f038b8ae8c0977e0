"""One option at given scores of its assumptions: its pace, its dates, and at the medians its goodput, power and bill."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from bench.cost.draws import log_normal, log_two_sided, two_sided
from bench.cost.flops import Convention, flops_per_token
from bench.cost.goodput import Saving, fraction_of, goodput, pooled, saving
from bench.cost.layout import Array
from bench.cost.parameters import n_parameters
from bench.cost.power import Load, power
from bench.cost.sites import Crossed, crossed
from bench.facts.figure import Figure, Parameter, Provenance
from bench.facts.model import Target
from bench.facts.prediction import Part, Prediction
from bench.facts.reliability import Goodput
from bench.facts.scenario import Option
from bench.facts.site import Power
from bench.facts.units import SECONDS_PER_DAY, SECONDS_PER_HOUR

Scores = Mapping[str, Array]
BUSY = (Part.COMPUTE, Part.RECOMPUTE, Part.OPTIMIZER)
DEVICES_PER_PUBLISHED_NODE = 8  # of the nodes whose failure rates were published; smaller nodes fail in proportion
COMMON_SPEED = "speed of all options alike"
NODE_FAILURES = "failures of nodes"
JOB_FAILURES = "failures of the whole job"
DETECTION = "time to notice a failure"
RESTART = "time to restart"
SLOW = "slow nodes"
COMMON = (COMMON_SPEED, NODE_FAILURES, JOB_FAILURES, DETECTION, RESTART, SLOW)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An option with what the cost model says of its steps."""

    option: Option
    target: Target
    predictions: tuple[Prediction, ...]  # one per kind of devices, of one site
    rated_w: tuple[float, ...]  # of a device, in the order of the predictions
    measured_w: tuple[float | None, ...]  # mean of a device in training, where a run on its kind has told
    common_share: float  # of the variance of the speed, that all options have in common

    @property
    def n_sites(self) -> int:
        """Places that it is spread over."""
        return self.option.wide_area.n_sites if self.option.wide_area else 1

    @property
    def flops_per_token(self) -> float:
        """Of the model, forward and backward, attention halved."""
        return flops_per_token(self.target.model, Convention.CAUSAL)

    def own(self, what: str) -> str:
        """The name of an assumption that is this option's alone."""
        return f"{what} of {self.option.name}"


def score_of(scores: Scores, name: str) -> Array:
    """The scores of an assumption; 0, its median, where none are given."""
    return scores.get(name, np.zeros(1))


def own_assumptions(entry: Entry) -> tuple[str, ...]:
    """Names of the assumptions that only this option makes."""
    vendors = tuple(entry.own(f"failures of rack group {name}") for name in entry.option.groups)
    return (entry.own("speed"), entry.own("start"), entry.own("ramp"), *vendors)


def wide_area(entry: Entry) -> Crossed | None:
    """What the line between its sites costs; None for one site."""
    if entry.option.wide_area is None:
        return None
    step_s = max(p.step_s.p50 for p in entry.predictions)
    return crossed(entry.option.wide_area, n_parameters(entry.target.model), step_s)


def tokens_per_s(entry: Entry, scores: Scores) -> Array:
    """Speed of the steps of the whole option: no failures, no slow nodes, no power cap."""
    share = entry.common_share
    score = math.sqrt(share) * score_of(scores, COMMON_SPEED) + math.sqrt(1 - share) * score_of(scores, entry.own("speed"))
    of_site = sum((log_two_sided(p.tokens_per_s, score) for p in entry.predictions), np.zeros(1))
    line = wide_area(entry)
    return np.asarray(of_site * entry.n_sites * (line.speed_fraction if line else 1.0))


def failures_per_day(entry: Entry, scores: Scores) -> tuple[Array, Array]:
    """(of hardware and spot capacity, of the job) a day, of everything that stops together."""
    line = wide_area(entry)
    together = 1 / entry.n_sites if line and line.independent else 1.0
    nodes = np.zeros(1)
    for name, group in entry.option.groups.items():
        middle, log_sd = pooled(group.reliability.node_failures_per_day.values())
        vendor = log_normal(group.reliability.vendor_factor, score_of(scores, entry.own(f"failures of rack group {name}")))
        n_like_published = group.cluster.n_devices / DEVICES_PER_PUBLISHED_NODE * together
        nodes = nodes + n_like_published * middle * np.exp(log_sd * score_of(scores, NODE_FAILURES)) * vendor
    middle, log_sd = pooled(next(iter(entry.option.groups.values())).reliability.job_failures_per_day.values())
    job = middle * np.exp(log_sd * score_of(scores, JOB_FAILURES))
    return nodes + spot_losses_per_day(entry) * together, job


def spot_losses_per_day(entry: Entry) -> float:
    """Losses of spot capacity a day, of all nodes; 0 for other capacity."""
    rental = entry.option.rental
    if rental is None or rental.losses_per_node_hour is None:
        return 0.0
    return rental.losses_per_node_hour.value * SECONDS_PER_DAY / SECONDS_PER_HOUR * entry.option.n_nodes


def warned_fraction(entry: Entry) -> float:
    """Share of the interruptions, at the medians, whose notice is long enough to save a copy before them."""
    rental, cost = entry.option.rental, saving_of(entry)
    if rental is None or rental.notice_s is None or rental.notice_s.value < cost.blocking_s + cost.lag_s:
        return 0.0
    nodes, job = (float(x[0]) for x in failures_per_day(entry, {}))
    return spot_losses_per_day(entry) / entry.n_sites / (nodes + job)


def saving_of(entry: Entry) -> Saving:
    """What its checkpoints cost, at one site."""
    return saving(entry.option.recovery, n_parameters(entry.target.model), max(1, entry.option.n_devices // entry.n_sites))


def effective(entry: Entry, scores: Scores) -> Array:
    """Useful fraction of the time after failures and slow nodes."""
    nodes, job = failures_per_day(entry, scores)
    recovery = entry.option.recovery
    detection = log_normal(recovery.detection_s, score_of(scores, DETECTION)) * (1 - warned_fraction(entry))
    restart = log_normal(recovery.restart_s, score_of(scores, RESTART))
    kept = fraction_of(recovery, saving_of(entry), detection, restart, SECONDS_PER_DAY / (nodes + job))
    return np.asarray(kept * (1 - np.minimum(slow_fraction(entry, scores), 0.9)))


def slow_fraction(entry: Entry, scores: Scores) -> Array:
    """Speed lost to slow nodes: the slowest group sets the pace."""
    each = [log_normal(group.reliability.slow_fraction, score_of(scores, SLOW)) for group in entry.option.groups.values()]
    return np.asarray(np.maximum.reduce(np.broadcast_arrays(*each)))


def goodput_of(entry: Entry) -> Goodput:
    """Its goodput at the medians."""
    nodes, job = (float(x[0]) for x in failures_per_day(entry, {}))
    line = wide_area(entry)
    n = entry.option.n_nodes // (entry.n_sites if line and line.independent else 1)
    n_devices = max(1, entry.option.n_devices // entry.n_sites)
    model = n_parameters(entry.target.model)
    return goodput(
        entry.option.recovery,
        model,
        n_devices,
        node_rates=[(n, nodes / n)],
        job_failures_per_day=job,
        warned_fraction=warned_fraction(entry),
    )


def loads_of(entry: Entry) -> list[Load]:
    """Its devices by kind, all of them, and how busy the plan keeps them."""
    loads = []
    for prediction, rated, measured in zip(entry.predictions, entry.rated_w, entry.measured_w, strict=True):
        busy = math.fsum(p.time_s for p in prediction.parts if p.part in BUSY) / prediction.step_s.p50
        used = prediction.n_devices_used / prediction.n_devices
        n = prediction.n_devices * entry.n_sites
        loads.append(Load(n_devices=n, rated_w=rated, busy_fraction=min(1.0, busy * used), measured_w=measured))
    return loads


def power_of(entry: Entry) -> Power:
    """What it draws while it trains."""
    return power(entry.option.site, loads_of(entry), goodput_of(entry).effective_fraction)


def paced(entry: Entry, scores: Scores) -> tuple[Array, Array, Array]:
    """(model FLOPs per day at full capacity, start day, ramp in days) at the scores; 0 per day where it is infeasible."""
    works = 0.0 if goodput_of(entry).infeasible else power_of(entry).speed_fraction
    rate = tokens_per_s(entry, scores) * effective(entry, scores) * works * entry.flops_per_token * SECONDS_PER_DAY
    start = two_sided(entry.option.start_day, score_of(scores, entry.own("start")))
    ramp = two_sided(entry.option.ramp_days, score_of(scores, entry.own("ramp")))
    return rate, start, ramp


def value_of(entry: Entry, name: str, score: float) -> tuple[float, str, str]:
    """(value, unit, source) of an assumption at a score, to be shown."""
    at: Scores = {name: np.array([score])}
    option, reliability = entry.option, next(iter(entry.option.groups.values())).reliability
    shown: dict[str, Callable[[], tuple[float, str, str]]] = {
        COMMON_SPEED: lambda: (float(tokens_per_s(entry, at)[0]), "tokens/s", "spread that the predictor has in common"),
        entry.own("speed"): lambda: (float(tokens_per_s(entry, at)[0]), "tokens/s", "spread of the predictor, this option's own"),
        entry.own("start"): lambda: (float(two_sided(option.start_day, at[name])[0]), "day", option.start_day.source),
        entry.own("ramp"): lambda: (float(two_sided(option.ramp_days, at[name])[0]), "days", option.ramp_days.source),
        NODE_FAILURES: lambda: (_rate(reliability.node_failures_per_day.values(), score), "per node-day", "published rates disagree"),
        JOB_FAILURES: lambda: (_rate(reliability.job_failures_per_day.values(), score), "per day", "published rates disagree"),
        DETECTION: lambda: _shown(option.recovery.detection_s, score, "s"),
        RESTART: lambda: _shown(option.recovery.restart_s, score, "s"),
        SLOW: lambda: _shown(reliability.slow_fraction, score, "of the speed"),
    }
    if name in shown:
        return shown[name]()
    group = next(g for key, g in option.groups.items() if name == entry.own(f"failures of rack group {key}"))
    return _shown(group.reliability.vendor_factor, score, "times the rate")


def _rate(rates: Iterable[Figure], score: float) -> float:
    middle, log_sd = pooled(rates)
    return middle * math.exp(log_sd * score)


def _shown(parameter: Parameter, score: float, unit: str) -> tuple[float, str, str]:
    return parameter.value * math.exp(parameter.log_sd * score), unit, parameter.source


def provenance_of(entry: Entry) -> Provenance:
    """The weakest that the date of its end rests on."""
    option = entry.option
    order = list(Provenance)
    known = [p.provenance for p in entry.predictions]
    known += [option.start_day.provenance, option.ramp_days.provenance]
    known += [option.recovery.detection_s.provenance, option.recovery.restart_s.provenance]
    return max(known, key=order.index)
