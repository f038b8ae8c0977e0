"""Claims, published failures and metered power against the product's own figures."""

from collections.abc import Callable

import numpy as np

from bench.config.compose import compose, devices, load_file
from bench.config.schema import Config
from bench.cost.backcheck import compared, first_order, meets, per_day, predicted_w
from bench.cost.draws import interval_of, log_normal, log_two_sided, two_sided
from bench.cost.goodput import checkpoint_interval_s, fraction_of, goodput, pooled, saving
from bench.cost.layout import Array
from bench.cost.power import Load, facility_w
from bench.deciding import drawn, entry_of
from bench.facts.backcheck import Claim, ClaimCheck, EnergyCheck, RowCheck
from bench.facts.figure import Interval, Parameter
from bench.facts.hardware import Precision
from bench.facts.reliability import Goodput, Recovery, RecoveryKind, Reliability
from bench.facts.scenario import Option
from bench.facts.site import Cooling, Site
from bench.facts.units import DAYS_PER_YEAR, SECONDS_PER_DAY, SECONDS_PER_HOUR
from bench.report.quantities import HOUSEHOLD_KWH_PER_YEAR, TENNESSEE_HOUSEHOLD_KWH_PER_YEAR, households, megawatts, us_gallons
from bench.simulation import Hazard, simulated_fractions
from bench.store.backchecks import claims, energy_rows, reliability_rows

GRID_PARAMETERS = 405e9
N_SAMPLES = 4000
SEED = 0
CONTRACT_YEARS = 3  # of the ten billion dollars; assumed, as in conf/rental/oracle_10bn.yaml
SYSTEMS = (
    *("oracle_24k_h100", "memphis_100k_h100", "blackwell_300k_b200", "gpt4_25k_a100", "tesla_85k_h100", "tesla_12k_diverted_h100"),
    "oracle_10bn_rental",
    *("inflection_22k_h100", "olcf_frontier_38k_mi250x", "cscs_alps_11k_gh200", "semianalysis_100k_h100", "colossus_200k_mixed"),
    "ib_cost_model_105k_h100",
)


def claim_checks() -> tuple[ClaimCheck, ...]:
    """Every claim with the product's own figure, the interval of that, and whether they agree."""
    config = compose([f"scenario={SYSTEMS[0]}", *(f"+option@scenario.options.{name}={name}" for name in SYSTEMS[1:])])
    assert config.scenario is not None
    known = {name: (config, option) for name, option in config.scenario.options.items()}
    return tuple(_checked(claim, known) for claim in claims())


Known = dict[str, tuple[Config, Option]]


def _checked(claim: Claim, known: Known) -> ClaimCheck:
    own, how = QUANTITIES[claim.quantity](known, claim.system)
    return ClaimCheck(claim=claim, own=own, agrees=meets(own, claim.value_low, claim.value_high), how=how)


def _exactly(value: float) -> Interval:
    return Interval(p10=value, p50=value, p90=value)


def _devices(known: Known, system: str) -> tuple[Interval, str]:
    option = known[system][1]
    return _exactly(option.n_devices), f"{option.n_nodes:,} nodes in conf/option/{system}.yaml"


def _peak_w(option: Option) -> Array:
    """Draws of the peak of the facility, without its cap."""
    site, names = option.site, ("node", "network", "pue")
    scores = drawn(names, N_SAMPLES, SEED)
    loads = [Load(n_devices=g.cluster.n_devices, rated_w=g.cluster.device.power_w.value, busy_fraction=1.0) for g in option.groups.values()]
    whole, n = facility_w(site, loads, busy=1.0), option.n_devices
    devices_w = whole / site.pue.value / (1 + site.network_fraction.value) - n * site.node_overhead_w.value
    node = log_normal(site.node_overhead_w, scores["node"])
    network, pue = log_normal(site.network_fraction, scores["network"]), log_normal(site.pue, scores["pue"])
    return np.asarray((devices_w + n * node) * (1 + network) * pue)


def _peak_power(known: Known, system: str) -> tuple[Interval, str]:
    return interval_of(_peak_w(known[system][1]) / 1e6), "devices, nodes, network and PUE at the peak, the cap of the site not applied"


def _it_power(known: Known, system: str) -> tuple[Interval, str]:
    site = known[system][1].site
    scores = drawn(("node", "network", "pue"), N_SAMPLES, SEED)
    return interval_of(_peak_w(known[system][1]) / log_normal(site.pue, scores["pue"]) / 1e6), "devices, nodes and network at the peak"


def _purchase_total(known: Known, system: str) -> tuple[Interval, str]:
    option = known[system][1]
    assert option.purchase is not None
    scores, p = drawn(("server", "network", "building"), N_SAMPLES, SEED), option.purchase
    each = sum(log_normal(price, scores[name]) for name, price in zip(scores, (p.server_usd, p.network_usd, p.building_usd), strict=True))
    return interval_of(np.asarray(option.n_devices * each)), "servers, network and building"


def _households(known: Known, system: str) -> tuple[Interval, str]:
    watts = float(np.median(_peak_w(known[system][1])))
    many, few = households(watts), households(watts, TENNESSEE_HOUSEHOLD_KWH_PER_YEAR)
    tennessee, us = TENNESSEE_HOUSEHOLD_KWH_PER_YEAR, HOUSEHOLD_KWH_PER_YEAR
    how = f"{megawatts(watts):.0f} MW over households of {tennessee:,.0f} (Tennessee) to {us:,.0f} kWh a year (US)"
    return Interval(p10=few, p50=(few + many) / 2, p90=many), how


def _water(known: Known, system: str) -> tuple[Interval, str]:
    option = known[system][1]
    rate = log_normal(option.site.water_m3_per_j, drawn(("water",), N_SAMPLES, SEED + 1)["water"])
    gallons = us_gallons(1.0) * _peak_w(option) * SECONDS_PER_DAY * rate
    return interval_of(gallons / 1e6), "a day at the peak, 1.1 to 1.8 L/kWh of cooling towers"


def _priced(parameter: Parameter, times: float) -> Interval:
    return interval_of(times * log_normal(parameter, drawn(("price",), N_SAMPLES, SEED)["price"]))


def _device_price(known: Known, system: str) -> tuple[Interval, str]:
    purchase = known[system][1].purchase
    assert purchase is not None
    return _priced(purchase.server_usd, 1.0), f"a device with its part of the server, {purchase.as_of}"


def _devices_price(known: Known, system: str) -> tuple[Interval, str]:
    option = known[system][1]
    assert option.purchase is not None
    return _priced(option.purchase.server_usd, option.n_devices), "servers; network and building come on top"


def _deal_value(known: Known, system: str) -> tuple[Interval, str]:
    option, rented = known[system][1], known["oracle_24k_h100"][1].rental
    assert rented is not None
    hours = CONTRACT_YEARS * DAYS_PER_YEAR * SECONDS_PER_DAY / SECONDS_PER_HOUR
    price = rented.usd_per_device_hour.value
    how = f"{option.n_devices:,} devices for {CONTRACT_YEARS} years (assumed) at ${price:.2f}, the price assumed of the 24,000"
    return _priced(rented.usd_per_device_hour, option.n_devices * hours), how


def _vendor_share(known: Known, system: str) -> tuple[Interval, str]:
    option = known[system][1]
    return _exactly(option.groups["dell"].cluster.n_nodes / option.n_nodes), "groups dell and supermicro of the option"


def _liquid(known: Known, system: str) -> tuple[Interval, str]:
    site = known[system][1].site
    return _exactly(float(site.cooling is Cooling.LIQUID)), f"cooling of the site {site.name}"


def _start_day(known: Known, system: str) -> tuple[Interval, str]:
    start = known[system][1].start_day
    return interval_of(two_sided(start, drawn(("start",), N_SAMPLES, SEED)["start"])), start.source


def _build_days(known: Known, system: str) -> tuple[Interval, str]:
    option, scores = known[system][1], drawn(("start", "ramp"), N_SAMPLES, SEED)
    days = two_sided(option.start_day, scores["start"]) + two_sided(option.ramp_days, scores["ramp"])
    return interval_of(days), "19 and 103 days at the medians of the option, 122 as published; the draws are skewed to later"


def _count_ratio(known: Known, system: str) -> tuple[Interval, str]:
    return _exactly(known[system][1].n_devices / known["gpt4_25k_a100"][1].n_devices), "devices over devices"


def _peak_ratio(known: Known, system: str) -> tuple[Interval, str]:
    both = [_peak_flops_per_s(known[name][1]) for name in (system, "gpt4_25k_a100")]
    return _exactly(both[0] / both[1]), "dense bf16 peaks, A100 against H100"


def _peak_flops_per_s(option: Option) -> float:
    return sum(g.cluster.n_devices * g.cluster.device.peak_flops_per_s[Precision.BF16].value for g in option.groups.values())


def _speed_ratio(known: Known, system: str) -> tuple[Interval, str]:
    fast, slow = (entry_of(*known[name], None).predictions[0].tokens_per_s for name in (system, "gpt4_25k_a100"))
    scores = drawn(("fast", "slow"), N_SAMPLES, SEED)
    ratios = interval_of(log_two_sided(fast, scores["fast"]) / log_two_sided(slow, scores["slow"]))
    return ratios, "predicted tokens/s of Grok-1, failures not counted; errors of the two taken to be independent"


QUANTITIES: dict[str, Callable[[Known, str], tuple[Interval, str]]] = {
    "devices": _devices,
    "peak_power": _peak_power,
    "it_power": _it_power,
    "purchase_total": _purchase_total,
    "households": _households,
    "water": _water,
    "device_price": _device_price,
    "devices_price": _devices_price,
    "deal_value": _deal_value,
    "vendor_share": _vendor_share,
    "liquid": _liquid,
    "start_day": _start_day,
    "build_days": _build_days,
    "count_ratio": _count_ratio,
    "peak_ratio": _peak_ratio,
    "speed_ratio": _speed_ratio,
}


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
    """Every metered row with the product's power."""
    site, sheets = load_file(Site, "site", "rented_h100"), {device.name: device for device in devices()}
    rows = [row for row in energy_rows() if not row.not_used]
    checks = []
    for row in rows:
        watts, how = predicted_w(row, [other for other in rows if other.id != row.id], sheets.get(row.device), site)
        checks.append(EnergyCheck(row=row, predicted_w=watts, how=how))
    return tuple(checks)
