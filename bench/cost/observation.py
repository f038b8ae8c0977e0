"""What one thing that a device does alone tells of the coefficients: a linear observation of their logarithms.

Source: Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", equations 2.8 and A.6: a Gaussian conditioned on a
linear function of it. All observations count at once, so that their order cannot matter.
"""

from dataclasses import dataclass, replace

import numpy as np

from bench.cost.coefficients import NAMES, log_values, stack_log_sds
from bench.cost.layout import Array
from bench.facts.hardware import Device
from bench.facts.prediction import Prior

CREDIBLE_SDS = 3.0  # an observation further from the prior than this is of another regime
# How far a kind of device's own rate may lie from the published one. Assumed: as far as stacks scatter in the coefficient that
# scales products (kernel_fraction in conf/prior/published.yaml).
DEVICE_LOG_SD = 0.05
# How much further a device may lie from what was measured on another product with the same chip, each beside its own datasheet
# (other memory, another board). Assumed: as two samples of one kind may.
KINDRED_LOG_SD = 0.05


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Log seconds of one thing over those that the prior expects of it."""

    what: str
    slopes: Array  # of those expected, by the logarithm of each coefficient
    surprise: float  # 0: as expected; positive: slower
    log_sd: float  # of the measurement, and of what carries over from the thing alone to the same thing in a step
    shared_log_sd: float = 0.0  # of what carries over, the same for all observations that have such a part

    @property
    def speed(self) -> float:
        """Measured over expected speed."""
        return float(np.exp(-self.surprise))


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything that profiles and slices tell of one device, and in words what they do not."""

    observations: tuple[Observation, ...] = ()
    told: tuple[str, ...] = ()
    not_told: tuple[str, ...] = ()

    def __add__(self, other: "Observed") -> "Observed":
        """Both."""
        return Observed(
            observations=(*self.observations, *other.observations),
            told=(*self.told, *other.told),
            not_told=(*self.not_told, *(sentence for sentence in other.not_told if sentence not in self.not_told)),
        )


def updated(center: Array, covariance: Array, observations: tuple[Observation, ...]) -> tuple[Array, Array]:
    """(mean, covariance) of the log coefficients after the observations."""
    if not observations:
        return center, covariance
    slopes = np.stack([one.slopes for one in observations])
    surprise, noise, shared = np.array([(one.surprise, one.log_sd, one.shared_log_sd) for one in observations]).T
    scatter = np.diag(noise**2) + np.outer(shared, shared)
    gain = np.linalg.solve(slopes @ covariance @ slopes.T + scatter, slopes @ covariance).T
    after = covariance - gain @ slopes @ covariance
    return center + gain @ surprise, np.asarray((after + after.T) / 2)


def observation(prior: Prior, what: str, ratio: float, slopes: dict[str, float], log_sd: float) -> Observation:
    """The observation of something that took `ratio` times the seconds expected, `slopes` by name."""
    row = np.array([slopes.get(name, 0.0) for name in NAMES])
    log_values(prior)  # refuses a prior of other coefficients
    return Observation(what=what, slopes=row, surprise=float(np.log(ratio)), log_sd=log_sd)


def common_rate(prior: Prior, what: str, ratio: float, names: tuple[str, ...], log_sd: float) -> Observation:
    """The observation of a rate that several coefficients have in common, as part of how far each scatters.

    With a common part of variance d among coefficients of variances v_i, the best linear guess of it is the sum of d / v_i
    times each; the rest of d and the noise are what such an observation errs by.
    """
    spread = dict(zip(NAMES, stack_log_sds(prior), strict=True))
    loose = [name for name in names if spread[name] > 0]
    weight = sum(spread[name] ** -2 for name in loose)
    common = min(DEVICE_LOG_SD**2, 1 / weight) if loose else 0.0
    rest = max(0.0, common - common**2 * weight)
    return observation(prior, what, ratio, {name: common / spread[name] ** 2 for name in loose}, float(np.sqrt(log_sd**2 + rest)))


def kindred(found: list[Observation], measured: Device, device: Device) -> tuple[list[Observation], str]:
    """What was found on one device as it tells of another with its chip, and what sentences call the measured one."""
    if measured.name == device.name:
        return found, device.name
    return [replace(one, log_sd=float(np.hypot(one.log_sd, KINDRED_LOG_SD))) for one in found], kindred_name(measured, device)


def kindred_name(measured: Device, device: Device) -> str:
    """What sentences about a device call the measured one with its chip."""
    return device.name if measured.name == device.name else f"{measured.name}, which has the chip of {device.name},"


def credible(prior: Prior, found: Observation) -> bool:
    """Whether the prior and the observation can be of the same regime."""
    spread = (found.slopes * stack_log_sds(prior)) @ (found.slopes * stack_log_sds(prior))
    return abs(found.surprise) <= CREDIBLE_SDS * float(np.sqrt(spread + found.log_sd**2 + found.shared_log_sd**2))


def sorted_out(prior: Prior, found: list[Observation], device: str, source: str) -> Observed:
    """The credible observations, with one sentence for all of them and one for each of the others."""
    used = tuple(one for one in found if credible(prior, one))
    odd = tuple(one for one in found if not credible(prior, one))
    speeds = ", ".join(f"{one.what} {one.speed:.2f}" for one in used)
    told = (f"{device} alone ({source}): {speeds} of the speed that the prior expects",) if used else ()
    far = "of the speed that the prior expects, too far to be the same regime"
    return Observed(
        observations=used, told=told, not_told=tuple(f"{one.what} of {device}: {one.speed:.2f} {far} ({source})" for one in odd)
    )
