"""Published failures, effective time and metered power against the product's own figures."""

import numpy as np

from bench.config.compose import devices, load_file
from bench.cost.backcheck import compared, first_order, per_day, predicted_w
from bench.cost.goodput import checkpoint_interval_s, fraction_of, goodput, pooled, saving
from bench.deciding import drawn
from bench.facts.backcheck import EnergyCheck, RowCheck
from bench.facts.reliability import Goodput, Recovery, RecoveryKind, Reliability
from bench.facts.site import Site
from bench.facts.units import SECONDS_PER_DAY
from bench.simulation import Hazard, simulated_fractions
from bench.store.backchecks import energy_rows, reliability_rows

GRID_PARAMETERS = 405e9
N_SAMPLES = 4000
SEED = 0
GRID = (1_024, 4_096, 16_384, 24_000, 50_000, 100_000, 200_000, 300_000)  # devices, eight to a node


def validity_rows() -> tuple[tuple[int, str, Goodput, float], ...]:
    """(devices, way to recover, goodput, mean of 54 simulated days) from small to large, with Llama 3's 405e9 parameters."""
    reliability, found = load_file(Reliability, "reliability", "published"), []
    node, job = (pooled(r.values())[0] for r in (reliability.node_failures_per_day, reliability.job_failures_per_day))
    for name in ("storage", "async"):
        recovery = load_file(Recovery, "recovery", name)
        for n in GRID:
            good = goodput(recovery, GRID_PARAMETERS, n, node_rates=[(n // 8, node)], job_failures_per_day=job)
            _, simulated = _fractions(GRID_PARAMETERS, n, recovery, node * n / 8, job)
            assert simulated is not None
            found.append((n, name, good, simulated))
    return tuple(found)


def row_checks() -> tuple[RowCheck, ...]:
    """Every published run with what is predicted of it, its own source left out."""
    scores = drawn(("node", "job", "count", "detection", "restart"), N_SAMPLES, SEED)
    zeros = {name: np.zeros(1) for name in scores}
    reliability = load_file(Reliability, "reliability", "published")
    checks = []
    for row in reliability_rows():
        if row.not_used:
            checks.append(RowCheck(row=row, compared=(), exact_fraction=None, first_order_fraction=None, simulated_fraction=None))
            continue
        recovery = load_file(Recovery, "recovery", row.recovery)
        nodes, job = (float(x[0]) for x in per_day(row, reliability, zeros))
        found = compared(row, reliability, recovery, scores)
        told = row.effective is not None and row.n_parameters is not None
        exact, simulated = _fractions(row.n_parameters, row.n_devices, recovery, nodes, job) if told else (None, None)
        first = first_order(row, recovery, SECONDS_PER_DAY / (nodes + job)) if told else None
        checks.append(RowCheck(row=row, compared=found, exact_fraction=exact, first_order_fraction=first, simulated_fraction=simulated))
    return tuple(checks)


def _fractions(
    n_parameters: float | None, n_devices: int, recovery: Recovery, nodes: float, job: float
) -> tuple[float | None, float | None]:
    """(exact form, mean of 54 simulated days) at the medians; no simulation of replicas."""
    assert n_parameters is not None
    mtbf, cost = SECONDS_PER_DAY / (nodes + job), saving(recovery, n_parameters, n_devices)
    detection, restart = recovery.detection_s.value, recovery.restart_s.value
    exact = float(fraction_of(recovery, cost, np.asarray(detection), np.asarray(restart), np.asarray(mtbf)))
    if recovery.kind is RecoveryKind.REPLICA:
        return exact, None
    hazard = Hazard(
        mtbf_s=mtbf,
        downtime_s=detection + restart,
        hardware_fraction=nodes / (nodes + job),
        repair_s=recovery.repair_s.value,
        n_spares=int(recovery.spare_fraction.value * n_devices / 8),
    )
    interval = checkpoint_interval_s(recovery, cost, mtbf)
    runs = simulated_fractions(interval, cost, hazard, wall_s=54 * SECONDS_PER_DAY, n_samples=100, seed=SEED)
    return exact, float(runs.mean())


def energy_checks() -> tuple[EnergyCheck, ...]:
    """Every row that gives enough with the product's power."""
    site, sheets = load_file(Site, "site", "rented_h100"), {device.name: device for device in devices()}
    rows = [row for row in energy_rows() if not row.not_used]
    checks = []
    for row in rows:
        watts, how = predicted_w(row, [other for other in rows if other.id != row.id], sheets.get(row.device), site)
        checks.append(EnergyCheck(row=row, predicted_w=watts, how=how))
    return tuple(checks)
