"""Watts of devices by what they do, of nodes and buildings around them, under a cap; and the water that carries the heat away."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.facts.site import CapAnswer, Power, Site
from bench.facts.units import J_PER_KWH, LITRES_PER_M3, SECONDS_PER_DAY, W_PER_MW

# Dynamic power goes with clock times voltage squared, and voltage about with the clock. Source: Mudge 2001, eq. 1 and 3.
POWER_OF_CLOCK = 3.0
LOWEST_CLOCK = 0.4  # of the free clock; below it a device is better switched off (assumed)
KG_PER_M3 = 1000.0
HEAT_OF_EVAPORATION_J_PER_KG = 2.43e6  # of water at 30 C (steam tables)


@dataclass(frozen=True, kw_only=True)
class Load:
    """Equal devices and what they do with the time of a step."""

    n_devices: int
    rated_w: float
    busy_fraction: float  # computing; the rest is waiting
    measured_w: float | None = None  # mean of a device in training, at the free clock

    def share(self, n_powered: float) -> "Load":
        """The same for fewer devices."""
        return replace(self, n_devices=math.floor(n_powered))


def device_w(site: Site, rated_w: float, busy_fraction: float, clock: float = 1.0) -> float:
    """Mean power of a device that computes for a fraction of the time, at a clock over the free one."""
    idle, waiting = site.idle_fraction.value, site.waiting_fraction.value
    computing = idle + (site.compute_fraction.value - idle) * math.pow(clock, POWER_OF_CLOCK)
    return rated_w * (computing * busy_fraction + min(waiting, computing) * (1 - busy_fraction))


def it_w(site: Site, per_device_w: float) -> float:
    """Power of a device with its share of node, network and storage."""
    return (per_device_w + site.node_overhead_w.value) * (1 + site.network_fraction.value)


def facility_w(site: Site, loads: Sequence[Load], *, busy: float | None = None, clock: float = 1.0) -> float:
    """Power of the building; `busy` overrides what the devices do."""
    each = [load.n_devices * it_w(site, _load_w(site, load, busy, clock)) for load in loads]
    return math.fsum(each) * site.pue.value


def _load_w(site: Site, load: Load, busy: float | None, clock: float) -> float:
    if busy is None and clock == 1.0 and load.measured_w is not None:
        return load.measured_w
    return device_w(site, load.rated_w, load.busy_fraction if busy is None else busy, clock)


def idle_w(site: Site, loads: Sequence[Load]) -> float:
    """Power of the building with every device on and none at work."""
    each = [load.n_devices * it_w(site, load.rated_w * site.idle_fraction.value) for load in loads]
    return math.fsum(each) * site.pue.value


def power(site: Site, loads: Sequence[Load], effective_fraction: float) -> Power:
    """What the cluster draws while it trains, at lower clocks or with fewer devices where the cap asks for it."""
    answer, clock, share, why = under_cap(site, loads)
    kept = [load.share(load.n_devices * share) for load in loads] if share < 1 else list(loads)
    peak = facility_w(site, kept, busy=1.0, clock=clock)
    working, waiting = facility_w(site, kept, clock=clock), facility_w(site, kept, busy=0.0, clock=clock)
    average = effective_fraction * working + (1 - effective_fraction) * waiting
    return Power(
        peak_w=peak,
        average_w=average,
        it_peak_w=peak / site.pue.value,
        swing_w=peak - waiting,
        water_m3_per_day=average * SECONDS_PER_DAY * site.water_m3_per_j.value,
        cap_w=site.power_cap_w.value if site.power_cap_w else None,
        cap_answer=answer,
        clock_fraction=clock,
        n_devices_powered=sum(load.n_devices for load in kept),
        speed_fraction=0.0 if why else share * _speed_at(clock, loads),
        infeasible=why,
    )


def under_cap(site: Site, loads: Sequence[Load]) -> tuple[CapAnswer, float, float, str]:
    """(answer, clock, share of the devices, why not) under the cap of a site: whichever of both is faster."""
    peak = facility_w(site, loads, busy=1.0)
    if site.power_cap_w is None or peak <= site.power_cap_w.value:
        return CapAnswer.NONE, 1.0, 1.0, ""
    cap, idle = site.power_cap_w.value, idle_w(site, loads)
    if cap <= idle:
        return CapAnswer.DEVICES, 1.0, cap / peak, _below_idle(cap, idle, sum(load.n_devices for load in loads))
    clock = ((cap - idle) / (peak - idle)) ** (1 / POWER_OF_CLOCK)
    if clock >= LOWEST_CLOCK and _speed_at(clock, loads) >= cap / peak:
        return CapAnswer.CLOCKS, clock, 1.0, ""
    return CapAnswer.DEVICES, 1.0, cap / peak, ""


def _below_idle(cap_w: float, needed_w: float, n_devices: int) -> str:
    return (
        f"power_cap_w {cap_w / W_PER_MW:,.3g} MW is below the {needed_w / W_PER_MW:,.3g} MW that {n_devices:,} devices draw idle; "
        f"raise it, or take at most {math.floor(n_devices * cap_w / needed_w):,} devices"
    )


def _speed_at(clock: float, loads: Sequence[Load]) -> float:
    """Training speed at a clock over that at the free one: computing stretches, waiting does not; the slowest group decides."""
    return min(1.0, *(1 / (load.busy_fraction / clock + 1 - load.busy_fraction) for load in loads))


def evaporation_m3_per_j(cycles_of_concentration: float) -> float:
    """Water that a cooling tower takes per joule of heat, all of it evaporated, and what is drained to keep salts down.

    1.48 litres evaporate per kWh; with 4 cycles a third as much is drained.

    >>> round(evaporation_m3_per_j(4.0) * 3.6e6 * 1000, 2)
    1.98
    """
    evaporated = 1 / HEAT_OF_EVAPORATION_J_PER_KG / KG_PER_M3
    return evaporated * cycles_of_concentration / (cycles_of_concentration - 1)


def litres_per_kwh(m3_per_j: float) -> float:
    """Water per energy as data centres print it.

    >>> round(litres_per_kwh(3.6 / 3.6e6 / 1000), 6)
    3.6
    """
    return m3_per_j * LITRES_PER_M3 * J_PER_KWH
