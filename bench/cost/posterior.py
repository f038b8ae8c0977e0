"""What measured rows of a stack tell about other rows of it: one Gaussian model in logarithms, conditioned.

A row is the cost model at the stack's own coefficients, which scatter around the shared ones, plus an effect of its series, a
smooth effect of its set-up, a slope in the device count, and noise with heavy tails. Without rows the same code gives the prior
prediction. Source: Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", sections 2.2 and 2.7 (explicit basis
functions); Student-t noise by reweighting (Gelman et al. 2013, section 17.2); re-linearised as an iterated Kalman update.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bench.cost.coefficients import log_values, stack_log_sds
from bench.cost.layout import Array
from bench.cost.observation import Observation, updated
from bench.cost.table import Table, completion_variance, features, jacobian, log2_devices
from bench.facts.prediction import Prior

N_ITERATIONS = 6
TAIL = 4.0  # degrees of freedom of a row's noise
LARGEST_STEP = 0.7  # of a log coefficient in one iteration
NOISE_ROWS = 8.0  # weight of the prior's noise, in rows


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Measured rows of one stack."""

    table: Table
    log_s: Array  # log device-seconds per token
    transfer_log_sd: float = 0.0  # how much further such rows are from the stack in question: another stack, another machine

    def take(self, rows: npt.NDArray[np.intp]) -> "Evidence":
        """The chosen rows, in their order."""
        return replace(self, table=self.table.take(rows), log_s=self.log_s[rows])


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """A stack as far as it is known."""

    prior: Prior
    observations: tuple[Observation, ...]  # of the device alone
    center: Array  # its coefficients after these, before any row
    covariance: Array  # of the same, [coefficients, coefficients]
    log_theta: Array  # its coefficients
    row_log_sd: float  # noise of a row
    evidence: Evidence | None
    slopes: Array  # of the evidence, [rows, coefficients]
    residual: Array  # of the evidence at the prior's coefficients, linearised
    precision: Array  # inverse covariance of the evidence

    def predict(self, table: Table) -> tuple[Array, Array]:
        """(mean, variance without a row's noise) of the log device-seconds per token of every row."""
        here, slopes = jacobian(table, self.log_theta)
        mean = here - slopes @ (self.log_theta - self.center)
        variance = _variance(self.prior, table, slopes, self.covariance)
        if self.evidence is not None:
            cross = covariance_of(self.prior, table, self.evidence.table, slopes, self.slopes, covariance=self.covariance)
            mean = mean + cross @ self.precision @ self.residual
            variance = variance - np.einsum("ij,jk,ik->i", cross, self.precision, cross)
        return mean, np.maximum(variance, 1e-6) + completion_variance(table, self.log_theta)

    def variance_after(self, table: Table, further: Table) -> Array:
        """Variance of every row of `table` once the rows of `further` have been measured too, whatever they show."""
        seen = [self.evidence.table] if self.evidence is not None else []
        slopes = [jacobian(part, self.log_theta)[1] for part in (*seen, further)]
        own = jacobian(table, self.log_theta)[1]
        parts = [*seen, further]
        blocks = [
            [covariance_of(self.prior, a, b, sa, sb, covariance=self.covariance) for b, sb in zip(parts, slopes, strict=True)]
            for a, sa in zip(parts, slopes, strict=True)
        ]
        covariance = np.block(blocks) + self.row_log_sd**2 * np.eye(sum(part.n_rows for part in parts))
        cross = np.hstack(
            [covariance_of(self.prior, table, b, own, sb, covariance=self.covariance) for b, sb in zip(parts, slopes, strict=True)]
        )
        explained = np.einsum("ij,ji->i", cross, np.linalg.solve(covariance, cross.T))
        before = _variance(self.prior, table, own, self.covariance)
        return np.asarray(np.maximum(before - explained, 1e-6) + completion_variance(table, self.log_theta))

    def after(self, observations: Sequence[Observation]) -> "Posterior":
        """The same stack once its device has shown what is now expected of it in these observations."""
        shift = self.center - log_values(self.prior)
        agreed = [replace(one, surprise=float(one.slopes @ shift)) for one in observations]
        return condition(self.prior, self.evidence, (*self.observations, *agreed))


def condition(prior: Prior, evidence: Evidence | None, observations: tuple[Observation, ...] = ()) -> Posterior:
    """The stack after what was observed of its device alone and after its measured rows; the prior where there is neither."""
    center, covariance = updated(log_values(prior), np.diag(stack_log_sds(prior) ** 2), observations)
    if evidence is None or evidence.table.n_rows == 0:
        nothing = np.zeros((0, len(center)))
        return Posterior(
            prior=prior,
            observations=observations,
            center=center,
            covariance=covariance,
            log_theta=center,
            row_log_sd=prior.row_log_sd.value,
            evidence=None,
            slopes=nothing,
            residual=np.zeros(0),
            precision=np.zeros((0, 0)),
        )
    theta, noise, weight = center.copy(), 0.0, np.ones(evidence.table.n_rows)
    for iteration in range(N_ITERATIONS):
        here, slopes = jacobian(evidence.table, theta)
        if iteration == 0:
            noise = _first_noise(prior, evidence.log_s - here)
        residual = evidence.log_s - here + slopes @ (theta - center)
        known = covariance_of(prior, evidence.table, evidence.table, slopes, slopes, covariance=covariance)
        pull = np.linalg.solve(known + np.diag(_spread(evidence, noise, weight)), residual)
        left = noise**2 / weight * pull
        noise = _noise(prior, left, weight)
        weight = np.minimum(1.0, (TAIL + 1) / (TAIL + (left / noise) ** 2))
        theta = theta + np.clip(center + covariance @ (slopes.T @ pull) - theta, -LARGEST_STEP, LARGEST_STEP)
    here, slopes = jacobian(evidence.table, theta)
    known = covariance_of(prior, evidence.table, evidence.table, slopes, slopes, covariance=covariance)
    return Posterior(
        prior=prior,
        observations=observations,
        center=center,
        covariance=covariance,
        log_theta=theta,
        row_log_sd=noise,
        evidence=evidence,
        slopes=slopes,
        residual=evidence.log_s - here + slopes @ (theta - center),
        precision=inverse(known + np.diag(_spread(evidence, noise, weight))),
    )


def _spread(evidence: Evidence, noise: float, weight: Array) -> Array:
    """Variance of every measured row around its stack."""
    return np.asarray(noise**2 / weight + evidence.transfer_log_sd**2)


def _first_noise(prior: Prior, error: Array) -> float:
    """A noise wide enough that no row is taken for an outlier before the stack has been found."""
    few = len(error) <= NOISE_ROWS
    return prior.row_log_sd.value if few else max(prior.row_log_sd.value, 1.2 * float(np.median(np.abs(error - np.median(error)))))


def _noise(prior: Prior, left: Array, weight: Array) -> float:
    """Standard deviation of what the model leaves, with the prior's as so many rows more."""
    rows = NOISE_ROWS * prior.row_log_sd.value**2 + float(np.sum(np.minimum(weight, 1.0) * left**2))
    return float(np.sqrt(rows / (NOISE_ROWS + 0.8 * len(left))))


def inverse(matrix: Array) -> Array:
    """The inverse of a covariance."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def covariance_of(prior: Prior, first: Table, second: Table, slopes_1: Array, slopes_2: Array, *, covariance: Array | None = None) -> Array:
    """Covariance of rows of one stack, without noise; that of its coefficients is the prior's where none is given."""
    scaled = slopes_1 * stack_log_sds(prior) ** 2 if covariance is None else slopes_1 @ covariance
    return np.asarray(scaled @ slopes_2.T + effects_of(prior, first, second))


def effects_of(prior: Prior, first: Table, second: Table) -> Array:
    """Covariance of rows of one stack beyond that of its coefficients: of a series, of alike set-ups, of a slope in the device count."""
    distance = ((features(first)[:, None, :] - features(second)[None, :, :]) ** 2).sum(axis=2)
    smooth = prior.shape_log_sd.value**2 * np.exp(-distance / (2 * prior.shape_length.value**2))
    series = prior.series_log_sd.value**2 * (first.series[:, None] == second.series[None, :])
    slope = prior.scale_log_sd_per_doubling.value**2 * np.outer(log2_devices(first), log2_devices(second))
    return np.asarray(smooth + series + slope)


def _variance(prior: Prior, table: Table, slopes: Array, covariance: Array) -> Array:
    """The diagonal of the covariance of a table with itself."""
    effects = prior.shape_log_sd.value**2 + prior.series_log_sd.value**2
    from_coefficients = np.einsum("ij,ij->i", slopes @ covariance, slopes)
    return np.asarray(from_coefficients + effects + (prior.scale_log_sd_per_doubling.value * log2_devices(table)) ** 2)
