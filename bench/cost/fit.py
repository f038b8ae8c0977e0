"""The shared coefficients and how far stacks differ in them, from rows of many stacks: expectation-maximisation.

Each stack's coefficients scatter around the shared ones; given the scatter, the shared ones follow by weighted least squares
(Gauss-Newton with a line search), and given those, the scatter from each stack's posterior. Physical priors hold what the rows
do not decide. Source: Laird and Ware 1982, "Random-Effects Models for Longitudinal Data"; Student-t noise by reweighting.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bench.cost.coefficients import NAMES, log_sds, log_values, stack_log_sds
from bench.cost.layout import Array
from bench.cost.posterior import TAIL, Evidence, effects_of, inverse
from bench.cost.table import jacobian, log_s
from bench.facts.figure import Provenance
from bench.facts.prediction import Coefficient, Prior

N_ITERATIONS = 7
FIRST_SCATTER_ITERATION = 3  # from here on the scatter of stacks is fitted too
PRIOR_STACKS = 10.0  # weight of the physical scatter, in stacks
STACK_ROWS = 40.0  # a stack with more rows weighs as so many: near copies are not evidence
LARGEST_STEP = 1.5


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Rows of many stacks."""

    evidence: Evidence
    stack: npt.NDArray[np.intp]  # of each row

    def take(self, rows: npt.NDArray[np.intp]) -> "Sample":
        """The chosen rows, in their order."""
        return Sample(evidence=self.evidence.take(rows), stack=self.stack[rows])


@dataclass(frozen=True)
class _Block:
    """One stack's rows: which they are, their slopes and inverse covariance."""

    rows: npt.NDArray[np.intp]
    slopes: Array
    precision: Array


def fit(physical: Prior, sample: Sample) -> Prior:
    """The prior after the rows, with how sure each coefficient is."""
    center, width = log_values(physical), log_sds(physical)
    theta, prior = center.copy(), physical
    groups = [np.flatnonzero(sample.stack == stack) for stack in np.unique(sample.stack)]
    share = np.concatenate([np.full(len(rows), min(1.0, STACK_ROWS / len(rows))) for rows in groups])[np.argsort(np.concatenate(groups))]
    tables = [sample.evidence.table.take(rows) for rows in groups]
    effects = [effects_of(physical, table, table) for table in tables]  # only the scatter of coefficients is fitted
    weight = np.ones_like(share)
    covariance = np.diag(width**2)
    for iteration in range(N_ITERATIONS):
        here, slopes = jacobian(sample.evidence.table, theta)
        noise = physical.row_log_sd.value**2 / weight / share
        spread = stack_log_sds(prior) ** 2
        blocks = [_block(rows, slopes[rows], spread, more + np.diag(noise[rows])) for rows, more in zip(groups, effects, strict=True)]
        error = sample.evidence.log_s - here
        information = np.diag(1 / width**2) + sum(block.slopes.T @ block.precision @ block.slopes for block in blocks)
        pull = (center - theta) / width**2 + sum(block.slopes.T @ block.precision @ error[block.rows] for block in blocks)
        covariance = np.asarray(np.linalg.inv(information), dtype=np.float64)
        theta = _line_search(sample, blocks, theta, covariance @ pull, center=center, width=width)
        error = sample.evidence.log_s - log_s(sample.evidence.table, theta)
        weight, scatter = _expectation(prior, physical, blocks, error, noise)
        if iteration >= FIRST_SCATTER_ITERATION:
            prior = _with_scatter(prior, scatter)
    return _fitted(prior, physical, theta, np.sqrt(np.diag(covariance)), n_rows=len(sample.stack), n_stacks=len(groups))


def _block(rows: npt.NDArray[np.intp], slopes: Array, spread: Array, rest: Array) -> _Block:
    """A stack's rows: their covariance is that of coefficients that scatter with variances `spread`, and the rest."""
    return _Block(rows, slopes, inverse((slopes * spread) @ slopes.T + rest))


def _line_search(sample: Sample, blocks: list[_Block], theta: Array, step: Array, *, center: Array, width: Array) -> Array:
    """The coefficients after the longest of ever shorter steps that fits better than none."""

    def misfit(at: Array) -> float:
        error = sample.evidence.log_s - log_s(sample.evidence.table, at)
        return float(sum(error[b.rows] @ b.precision @ error[b.rows] for b in blocks) + np.sum(((at - center) / width) ** 2))

    before, length = misfit(theta), min(1.0, LARGEST_STEP / float(np.abs(step).max()))
    while misfit(theta + length * step) > before and length > 0.01:
        length /= 2
    return np.asarray(theta + length * step)


def _expectation(prior: Prior, physical: Prior, blocks: list[_Block], error: Array, noise: Array) -> tuple[Array, Array]:
    """(weight of every row, scatter of stacks in every coefficient)."""
    spread, wanted = stack_log_sds(prior), stack_log_sds(physical)
    squares, weight = np.zeros(len(NAMES)), np.ones_like(error)
    for block in blocks:
        pull = block.precision @ error[block.rows]
        scaled = block.slopes * spread**2
        squares += (scaled.T @ pull) ** 2 + spread**2 - np.einsum("ij,ij->j", scaled, block.precision @ scaled)
        left = noise[block.rows] * pull
        weight[block.rows] = np.clip((TAIL + 1) / (TAIL + (left / physical.row_log_sd.value) ** 2), 0.02, 2.0)
    return weight, np.sqrt((squares + PRIOR_STACKS * wanted**2) / (len(blocks) + PRIOR_STACKS))


def _with_scatter(prior: Prior, scatter: Array) -> Prior:
    changed = {name: replace(prior.coefficients[name], stack_log_sd=float(value)) for name, value in zip(NAMES, scatter, strict=True)}
    return replace(prior, coefficients=changed)


def _fitted(prior: Prior, physical: Prior, theta: Array, sd: Array, *, n_rows: int, n_stacks: int) -> Prior:
    """The prior with six digits of every figure and where it comes from."""
    coefficients = {
        name: Coefficient(
            value=_digits(float(np.exp(theta[i]))),
            log_sd=_digits(float(sd[i])),
            stack_log_sd=_digits(prior.coefficients[name].stack_log_sd),
            provenance=Provenance.FITTED,
            source=f"fitted to {n_rows} published rows of {n_stacks} stacks; before them {physical.coefficients[name].value:g} "
            f"+-{100 * physical.coefficients[name].log_sd:.0f} %: {physical.coefficients[name].source}",
        )
        for i, name in enumerate(NAMES)
    }
    return replace(prior, name="published", coefficients=coefficients)


def _digits(value: float) -> float:
    return float(f"{value:.6g}")
