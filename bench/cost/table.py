"""Rows to predict: each a workload, or several weighted ones where its source leaves cells of the set-up empty."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.cost.coefficients import NAMES, coefficients_of
from bench.cost.layout import Array
from bench.cost.step_time import log_device_s_per_token
from bench.cost.workload import Workload

STEP = 1e-3  # of a logarithm, in the numerical derivative


@dataclass(frozen=True, kw_only=True)
class Table:
    """Completions, those of one row next to one another."""

    work: Workload
    owner: npt.NDArray[np.intp]  # row of each completion, ascending
    weight: Array  # of each, 1 in all per row
    series: npt.NDArray[np.intp]  # of each row; rows of one series share what their model on their stack has of its own

    @property
    def n_rows(self) -> int:
        """Rows, not completions."""
        return len(self.series)

    @property
    def _first(self) -> npt.NDArray[np.intp]:
        return np.searchsorted(self.owner, np.arange(self.n_rows))

    def mean(self, values: Array) -> Array:
        """Weighted mean of a value of every completion, by row."""
        return np.asarray(np.add.reduceat(values * self.weight, self._first)) if self.n_rows else np.zeros(0)

    @property
    def heaviest(self) -> npt.NDArray[np.intp]:
        """Place of the completion that weighs most, among those of each row."""
        ends = np.append(self._first[1:], len(self.owner))
        return np.array([int(np.argmax(self.weight[a:b])) for a, b in zip(self._first, ends, strict=True)], dtype=np.intp)

    def take(self, rows: npt.NDArray[np.intp]) -> "Table":
        """The chosen rows, in their order."""
        ends = np.append(self._first[1:], len(self.owner))
        first = self._first
        counts = ends[rows] - first[rows]
        chosen = np.concatenate([np.arange(first[r], ends[r]) for r in rows]) if len(rows) else np.zeros(0, dtype=np.intp)
        return Table(
            work=self.work.take(chosen),
            owner=np.repeat(np.arange(len(rows)), counts),
            weight=self.weight[chosen],
            series=self.series[rows],
        )


def log_s(table: Table, log_theta: Array) -> Array:
    """Log device-seconds per token of every row."""
    return table.mean(log_device_s_per_token(table.work, coefficients_of(log_theta)))


def completion_variance(table: Table, log_theta: Array) -> Array:
    """Variance over the completions of every row."""
    values = log_device_s_per_token(table.work, coefficients_of(log_theta))
    return table.mean((values - table.mean(values)[table.owner]) ** 2)


def jacobian(table: Table, log_theta: Array) -> tuple[Array, Array]:
    """(log seconds [rows], their derivatives by the logarithm of each coefficient [rows, coefficients])."""
    here = log_s(table, log_theta)
    slopes = np.empty((table.n_rows, len(NAMES)))
    for i in range(len(NAMES)):
        moved = log_theta.copy()
        moved[i] += STEP
        slopes[:, i] = (log_s(table, moved) - here) / STEP
    return here, slopes


def features(table: Table) -> Array:
    """What makes two set-ups of a stack alike, [rows, features]: each a logarithm, or a switch worth some doublings."""
    w = table.work
    columns = (
        np.log2(w.d_model),
        np.log2(w.n_layers),
        np.log2(w.micro_batch * w.seq_len),
        np.log2(w.seq_len),
        2 * np.log2(w.tp),
        np.log2(w.pp),
        2 * np.log2(w.cp),
        np.log2(w.ep),
        2 * w.full_recompute,
        3 * (w.experts_top_k > 0),
        2 * w.is_narrow + 2 * w.is_fp4,
        np.log2(w.n_virtual),
        0.5 * np.log2(w.n_micro),
        2 * w.shards_weights,
    )
    return np.stack([table.mean(np.broadcast_to(column, table.owner.shape)) for column in columns], axis=1)


def log2_devices(table: Table) -> Array:
    """Doublings of the device count beyond one node of eight."""
    return table.mean(np.broadcast_to(np.log2(table.work.n_devices), table.owner.shape)) - 3


def single(work: Workload, series: int = 0) -> Table:
    """The table of one workload, its fields without a dimension."""
    row = work.broadcast(1)
    return Table(work=row, owner=np.zeros(1, dtype=np.intp), weight=np.ones(1), series=np.array([series], dtype=np.intp))
