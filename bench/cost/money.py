"""Bills to the cent: rental, purchase written off over its life, electricity; and the rental price that equals them."""

import math
from collections.abc import Iterable

from bench.errors import InvalidFact
from bench.facts.decision import Bill, CostPart
from bench.facts.figure import Parameter
from bench.facts.scenario import Purchase, Rental
from bench.facts.site import Site
from bench.facts.units import CENTS_PER_USD, J_PER_MWH, SECONDS_PER_HOUR


def cents(usd: float) -> int:
    """Whole cents, halves to the even one.

    >>> cents(0.125), cents(12.34)
    (12, 1234)
    """
    if not math.isfinite(usd):
        raise InvalidFact(f"{usd} USD is no sum of money; check prices and durations")
    return round(usd * CENTS_PER_USD)


def bill(parts: Iterable[CostPart]) -> Bill:
    """The parts with their total."""
    kept = tuple(parts)
    return Bill(parts=kept, total_cents=sum(part.cents for part in kept))


def rental_parts(rental: Rental, device_hours: float) -> list[CostPart]:
    """What renting costs; power, cooling and network are the owner's."""
    price = rental.usd_per_device_hour
    what = f"{device_hours:,.0f} device-hours at ${price.value:.2f}, {rental.capacity.value}, {rental.provider}, {rental.as_of}"
    basis = f"{what} ({price.source})"
    return [CostPart(what="rental", cents=cents(device_hours * price.value), basis=basis)]


def purchase_parts(purchase: Purchase, n_devices: int) -> list[CostPart]:
    """What is paid before anything runs."""
    prices = (("servers", purchase.server_usd), ("network", purchase.network_usd), ("building", purchase.building_usd))
    return [CostPart(what=what, cents=n_devices * cents(price.value), basis=_bought(purchase, n_devices, price)) for what, price in prices]


def _bought(purchase: Purchase, n_devices: int, price: Parameter) -> str:
    return f"{n_devices:,} devices at ${price.value:,.2f}, {purchase.as_of} ({price.source})"


def use_parts(purchase: Purchase, n_devices: int, used_s: float) -> list[CostPart]:
    """The share of a purchase that a time of use wears off, in a straight line; at most all of it."""
    of_servers = 1 - purchase.residual_fraction.value
    lives = {"servers": purchase.server_life_s.value, "network": purchase.server_life_s.value, "building": purchase.building_life_s.value}
    worn = {what: min(1.0, used_s / life) * (of_servers if what == "servers" else 1.0) for what, life in lives.items()}
    return [
        CostPart(what=part.what, cents=round(part.cents * worn[part.what]), basis=f"{worn[part.what]:.2%} of: {part.basis}")
        for part in purchase_parts(purchase, n_devices)
    ]


def electricity_part(site: Site, energy_j: float) -> CostPart:
    """What the grid charges."""
    price = site.electricity_usd_per_j.value
    basis = f"{energy_j / J_PER_MWH:,.0f} MWh at ${price * J_PER_MWH:.2f} ({site.electricity_usd_per_j.source})"
    return CostPart(what="electricity", cents=cents(energy_j * price), basis=basis)


def hourly_usd(total_cents: int, device_s: float) -> float:
    """Dollars per device-hour that make so much of so many device-seconds."""
    return total_cents / CENTS_PER_USD / (device_s / SECONDS_PER_HOUR)
