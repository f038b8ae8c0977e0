"""How sure a prediction is: its width as the back-test asks, and which cause carries how much of it."""

import numpy as np

from bench.cost.coefficients import NAMES
from bench.cost.layout import Array
from bench.cost.posterior import Posterior
from bench.cost.table import Table, completion_variance, jacobian
from bench.facts.prediction import Cause

NORMAL_P90 = 1.2815515655446004  # 90th percentile of the standard normal
MANY_ROWS = 8  # measured rows of a stack, from which on its plans are known rather than one of them
CAUSES: dict[str, tuple[str, ...]] = {
    "compute efficiency": (
        *("kernel_fraction", "kernel_factor_volta", "kernel_factor_ampere", "kernel_factor_blackwell", "kernel_factor_cdna"),
        *(
            "kernel_factor_torch",
            "fp8_fraction",
            "fp4_factor",
            "attention_fraction",
            "attention_progress_per_year",
            "expert_fraction",
            "fp8_expert_fraction",
            "recompute_fraction",
        ),
    ),
    "memory-bound work": (
        *("score_bytes", "traffic_factor", "eager_traffic_factor", "compiled_traffic_factor", "cast_bytes", "dispatch_passes"),
        *("logit_bytes", "optimizer_factor"),
    ),
    "launching": ("launch_floor_s", "launch_floor_eager_factor", "launch_floor_tensor_factor", "launch_floor_expert_s", "step_overhead_s"),
    "links inside a node": (
        "scale_up_fraction",
        "scale_up_latency_s",
        "exposed_tensor_fraction",
        "overlapped_tensor_factor",
        "exposed_context_fraction",
    ),
    "network between nodes": (
        *("scale_out_fraction", "scale_out_decay_per_doubling", "scale_out_latency_s", "ring_step_s", "exposed_expert_fraction"),
        *("exposed_pipeline_fraction", "tensor_crossing_s", "blocking_send_s", "blocking_inner_factor", "congested_tensor_factor"),
        *("congested_gradient_factor", "congested_zero1_factor"),
    ),
    "overlap": (
        "hidden_gradient_fraction",
        "hidden_zero1_fraction",
        "hidden_fsdp_fraction",
        "contention_fraction",
        "bucket_bytes",
        "zero1_call_factor",
    ),
    "software stack": ("stack_factor", "progress_per_year", "torch_factor", "deepspeed_factor", "jax_factor", "straggler_per_doubling"),
}
REST = "what the formulas miss"


def predicted(posterior: Posterior, table: Table) -> tuple[Array, Array]:
    """(mean, standard deviation of a measurement) of the log device-seconds per token, widened as the back-test asks."""
    mean, variance = posterior.predict(table)
    return mean, np.sqrt(variance + posterior.row_log_sd**2) * width_factors(posterior, table)


def width_factors(posterior: Posterior, table: Table) -> Array:
    """The prior's factor on the width of every row, by what was measured of its stack."""
    widths, evidence = posterior.prior.widths, posterior.evidence
    if evidence is None:
        known = np.full(table.n_rows, widths.cold.value)
    elif evidence.table.n_rows > MANY_ROWS:
        known = np.full(table.n_rows, widths.plans.value)
    else:
        known = np.where(np.isin(table.series, evidence.table.series), widths.model.value, widths.stack.value)
    return np.asarray(known * _class_factors(posterior, table))


def _class_factors(posterior: Posterior, table: Table) -> Array:
    """How much wider rows of the less known classes are: the largest factor that applies, 1 for none."""
    widths, work = posterior.prior.widths, table.work
    factors = (
        np.where(work.expert_flops > 0, widths.experts.value, 1.0),
        np.where(work.is_blackwell > 0, widths.blackwell.value, 1.0),
        np.where(work.is_cdna > 0, widths.cdna.value, 1.0),
    )
    largest = np.maximum.reduce(np.broadcast_arrays(*factors))
    return table.mean(np.broadcast_to(largest, table.owner.shape))


def causes_of(posterior: Posterior, table: Table) -> tuple[Cause, ...]:
    """Shares of the variance of a table's first row, largest first; they add up to 1.

    Each group of coefficients counts with the variance that its own scatter leaves after the evidence.
    """
    mean_variance = float(posterior.predict(table)[1][0]) + posterior.row_log_sd**2
    slopes = jacobian(table, posterior.log_theta)[1][0]
    place = {name: i for i, name in enumerate(NAMES)}
    own = {cause: _own_variance(posterior, slopes, [place[name] for name in names]) for cause, names in CAUSES.items()}
    rest = float(completion_variance(table, posterior.log_theta)[0]) + posterior.row_log_sd**2
    rest += posterior.prior.shape_log_sd.value**2 + posterior.prior.series_log_sd.value**2
    whole = sum(own.values()) + rest
    shares = {**own, REST: rest}
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return tuple(Cause(cause=name, share=value / whole, log_sd=float(np.sqrt(mean_variance * value / whole))) for name, value in ordered)


def _own_variance(posterior: Posterior, slopes: Array, places: list[int]) -> float:
    """Variance by the coefficients at these places alone, as far as what was seen of the device alone leaves it."""
    return float(slopes[places] @ posterior.covariance[np.ix_(places, places)] @ slopes[places])
