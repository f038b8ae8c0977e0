"""What one or two measured hosts say about more of them: a Gaussian over a few logarithms, conditioned on what was seen.

Source: Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", equation A.6, at the point where the surprise of the
observations and that of the prior are in balance (Gauss-Newton, as in Nocedal and Wright 2006, "Numerical Optimization", section 10.3).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.cost.growth import ROUNDS, OwnWork, Ring, exchange_s, message_s, own_work, step_parts_s
from bench.cost.layout import Array
from bench.facts.lab import SDS_OF_80_PERCENT, LabForecast, LabNetwork, LabPoint
from bench.facts.profile import SICK_LIMIT, Collective, CollectivePoint, GroupAxis, NetworkProbe, NodeLink

UNKNOWNS = ("own work", "link rate", "message", "exchanges")  # logarithms of factors on what is expected of each
# How far each may be off before a second host is seen, as standard deviations of logarithms; assumed. A link's datasheet counts
# headers and hopes for the best; what an empty message takes is the software's; exchanges hide worse or better than the plan says.
PRIOR_LOG_SD = np.array([0.02, 0.15, 0.50, 0.15])
SOFTWARE_S = 3e-4  # of a message on an idle host, beside two delays: to tell that it is expected, and to send it
N_DELAYS = 2.5
PROBE_LOG_SD, STEP_LOG_SD = 0.04, 0.02  # of the laws, for a collective alone and for a step
GROWTH_LOG_SD = 0.025  # by which the laws are further off with every doubling of hosts
N_STEPS, NUDGE = 8, 1e-4
NOTHING_ODD = np.zeros(len(UNKNOWNS))
Law = Callable[[Array], float]


@dataclass(frozen=True)
class Seen:
    """One thing that was measured, and what the unknowns make of it; both logarithms of seconds."""

    law: Law
    log_s: float
    log_sd: float


@dataclass(frozen=True)
class Belief:
    """The unknowns after what was seen."""

    center: Array
    covariance: Array


@dataclass(frozen=True)
class Case:
    """What is asked for on so many hosts, and what it is expected to run on."""

    point: LabPoint  # of which only model, plan and batch are read
    work: OwnWork
    ring: Ring

    def parts_s(self, unknowns: Array) -> dict[str, float]:
        """Seconds of a step by part."""
        own, rate, message, exchanges = np.exp(unknowns)
        scaled = OwnWork(own * self.work.forward_s, own * self.work.backward_s, own * self.work.optimizer_s)
        parts = step_parts_s(scaled, self.point, _scaled(self.ring, rate, message))
        return {name: float(seconds * (1.0 if name == "own work" else exchanges)) for name, seconds in parts.items()}

    def law(self, unknowns: Array) -> float:
        """Logarithm of the seconds of a step."""
        return float(np.log(sum(self.parts_s(unknowns).values())))


def forecast(point: LabPoint, alone: LabPoint, second: LabPoint | None, network: LabNetwork, probes: Sequence[NetworkProbe]) -> LabForecast:
    """The step of a point with its 80 % interval. Nothing that was measured of the point itself is read.

    `second` is the same case on two hosts, where it was measured. Of the probes, those of two hosts tell of rates and messages, and
    that of the point's own hosts whether one of their links is sick.
    """
    pair = next((probe for probe in probes if probe.n_nodes == 2), None)
    links = next((probe.links for probe in probes if probe.n_nodes == point.n_hosts), ())
    work, ring = own_work(alone), expected_ring(network, pair)
    seen = [_probed(p.collective, p.size_bytes, ring, network, p.timing.median_s) for p in pair.collectives if _tells(p)] if pair else []
    if second:
        seen.append(_stepped(Case(second, work, ring), second.step_s, second.standard_error_s / second.step_s))
    belief = believe(seen)
    case = Case(point, work, narrowed(ring, network, point.n_hosts, sick_share(links)))
    parts = case.parts_s(belief.center)
    log_sd, step_s = log_sd_of(case.law, belief, point.n_hosts), sum(parts.values())
    reach = float(np.exp(SDS_OF_80_PERCENT * log_sd))
    return LabForecast(step_s=step_s, low_s=step_s / reach, high_s=step_s * reach, parts_s=parts)


def promised_log_sd(point: LabPoint, alone: LabPoint, second: LabPoint, network: LabNetwork, probe_bytes: Sequence[int]) -> float:
    """The standard deviation of a forecast's logarithm that probing and training on two hosts is worth, told before either is done.

    Of the point and of `second` only model, plan and batch are read; everything is taken to come out as expected.
    """
    work, ring = own_work(alone), expected_ring(network, None)
    seen = [_probed(Collective.ALL_REDUCE, size, ring, network, None) for size in probe_bytes]
    seen.append(_stepped(Case(second, work, ring), None, 0.0))
    case = Case(point, work, narrowed(ring, network, point.n_hosts, 1.0))
    return log_sd_of(case.law, believe(seen), point.n_hosts)


def expected_ring(network: LabNetwork, pair: NetworkProbe | None) -> Ring:
    """The ring of a network as its description has it, of one rank of each host; a probe tells what two hosts do to one another."""
    empty_s = SOFTWARE_S + N_DELAYS * network.one_way_s
    ring = Ring(bytes_per_s=network.cluster.scale_out.bytes_per_s.value, empty_s=empty_s, pair_factors={})
    return replace(ring, pair_factors=pair_factors(pair, _probed_ring(ring, network))) if pair else ring


def narrowed(ring: Ring, network: LabNetwork, n_hosts: int, share: float) -> Ring:
    """The ring over so many hosts, whose slowest link has a share of the rate, and which passes an uplink once in each direction."""
    if network.uplink_bytes_per_s is not None and n_hosts > network.hosts_per_leaf:
        share = min(share, network.uplink_bytes_per_s / network.port_bytes_per_s)
    return _scaled(ring, share, 1.0)


def sick_share(links: Sequence[NodeLink]) -> float:
    """The rate of the slowest link over that of the median one, where it is so far below that it is no chance; else 1."""
    if not links:
        return 1.0
    rates = np.array([link.bytes_per_s for link in links])
    share = float(rates.min() / np.median(rates))
    return share if share < SICK_LIMIT else 1.0


def pair_factors(probe: NetworkProbe, ring: Ring) -> dict[Collective, tuple[tuple[float, float], ...]]:
    """By how much two hosts are slower than the law, for exchanges whose messages there and back share their one connection."""
    found = {}
    for collective in (Collective.ALL_GATHER, Collective.SEND_RECV):
        points = sorted((p for p in probe.collectives if p.collective is collective and _across_two(p)), key=lambda p: p.size_bytes)
        lawful = [message_s(ring, p.size_bytes / (2 if collective in ROUNDS else 1)) for p in points]
        if points:
            factors = [max(1.0, p.timing.median_s / s) for p, s in zip(points, lawful, strict=True)]
            found[collective] = tuple((float(p.size_bytes), factor) for p, factor in zip(points, factors, strict=True))
    return found


def _across_two(point: CollectivePoint) -> bool:
    return point.axis is GroupAxis.ACROSS_NODES and point.n_ranks == 2


def _tells(point: CollectivePoint) -> bool:
    return point.collective is Collective.ALL_REDUCE and _across_two(point)


def _probed_ring(ring: Ring, network: LabNetwork) -> Ring:
    """The ring as a probe between hosts sees it: one rank of each host has the whole port."""
    return _scaled(ring, network.cluster.devices_per_node, 1.0)


def _probed(collective: Collective, size_bytes: int, ring: Ring, network: LabNetwork, seconds: float | None) -> Seen:
    """A probe of two hosts; one that was not made yet is taken to come out as expected."""
    alone = _probed_ring(ring, network)

    def law(unknowns: Array) -> float:
        _, rate, message, _ = np.exp(unknowns)
        return float(np.log(exchange_s(collective, size_bytes, 2, _scaled(alone, rate, message))))

    return Seen(law, law(NOTHING_ODD) if seconds is None else float(np.log(seconds)), PROBE_LOG_SD)


def _stepped(case: Case, step_s: float | None, noise: float) -> Seen:
    expected = case.law(NOTHING_ODD) if step_s is None else float(np.log(step_s))
    return Seen(case.law, expected, float(np.hypot(noise, STEP_LOG_SD)))


def _scaled(ring: Ring, rate: float, message: float) -> Ring:
    return replace(ring, bytes_per_s=ring.bytes_per_s * rate, empty_s=ring.empty_s * message)


def believe(seen: Sequence[Seen]) -> Belief:
    """The unknowns after everything seen, none of them expected to differ from 0 before."""
    precision = np.diag(PRIOR_LOG_SD**-2.0)
    center: Array = NOTHING_ODD
    covariance: Array = np.asarray(np.diag(PRIOR_LOG_SD**2.0))
    for _ in range(N_STEPS if seen else 0):
        slopes = np.stack([slopes_of(one.law, center) for one in seen])
        weights = np.array([one.log_sd**-2.0 for one in seen])
        surprise = np.array([one.log_s - one.law(center) for one in seen]) + slopes @ center
        covariance = np.asarray(np.linalg.inv(precision + slopes.T @ (weights[:, None] * slopes)), dtype=np.float64)
        center = covariance @ (slopes.T @ (weights * surprise))
    return Belief(np.asarray(center), np.asarray(covariance))


def slopes_of(law: Law, at: Array) -> Array:
    """Of a law, by every unknown."""
    nudges = NUDGE * np.eye(len(at))
    return np.array([(law(at + nudge) - law(at - nudge)) / (2 * NUDGE) for nudge in nudges])


def log_sd_of(law: Law, belief: Belief, n_hosts: int) -> float:
    """Standard deviation of a law's logarithm, with what the law itself is off by."""
    slopes, doublings = slopes_of(law, belief.center), float(np.log2(n_hosts))
    return float(np.sqrt(slopes @ belief.covariance @ slopes + STEP_LOG_SD**2 + (GROWTH_LOG_SD**2) * doublings))
