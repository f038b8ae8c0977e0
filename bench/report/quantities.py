"""Power, energy, water and money for people: MW, MWh, gallons, households, dollars."""

from bench.facts.figure import Interval
from bench.facts.units import (
    CENTS_PER_USD,
    DAYS_PER_YEAR,
    J_PER_KWH,
    J_PER_MWH,
    LITRES_PER_M3,
    M3_PER_US_GALLON,
    SECONDS_PER_DAY,
    W_PER_MW,
)
from bench.report.format import significant

# Electricity of a household in a year. Source: US Energy Information Administration, residential mean of 2022, recalled.
HOUSEHOLD_KWH_PER_YEAR = 10_791.0
# The same near Memphis. Source: derived, the Tennessee Valley Authority's "nearly 90,000 homes" for 150 MW (Knox News, 2024).
TENNESSEE_HOUSEHOLD_KWH_PER_YEAR = 14_610.0


def megawatts(watts: float) -> float:
    """A power in MW.

    >>> megawatts(150e6)
    150.0
    """
    return watts / W_PER_MW


def megawatt_hours(joules: float) -> float:
    """An energy in MWh: one MW for an hour.

    >>> megawatt_hours(150e6 * 3600)
    150.0
    """
    return joules / J_PER_MWH


def us_gallons(cubic_metres: float) -> float:
    """A volume in US gallons.

    >>> round(us_gallons(4921.035))
    1300000
    """
    return cubic_metres / M3_PER_US_GALLON


def litres_per_kwh(cubic_metres_per_joule: float) -> float:
    """Water per energy as data centres print it.

    >>> round(litres_per_kwh(1.41 / 1000 / 3.6e6), 9)
    1.41
    """
    return cubic_metres_per_joule * LITRES_PER_M3 * J_PER_KWH


def households(watts: float, kwh_per_year: float = HOUSEHOLD_KWH_PER_YEAR) -> float:
    """Households that use so much power on average, all hours of the year.

    >>> round(households(1.5, kwh_per_year=1.5 * 24 * 365.25 / 1000), 6)
    1.0
    """
    return watts / (kwh_per_year * J_PER_KWH / (DAYS_PER_YEAR * SECONDS_PER_DAY))


def dollars(cents: int) -> str:
    """Money to the cent.

    >>> dollars(123456789)
    '$1,234,567.89'
    """
    sign, whole = ("-" if cents < 0 else ""), abs(cents)
    return f"{sign}${whole // CENTS_PER_USD:,}.{whole % CENTS_PER_USD:02d}"


def millions(cents: int) -> str:
    """Money in millions of dollars."""
    return significant(cents / CENTS_PER_USD / 1e6)


def day_span(interval: Interval | None) -> str:
    """Days over their 10-90 % interval; never, where there is none."""
    if interval is None:
        return "never"
    return f"{interval.p50:,.0f}\n{interval.p10:,.0f} to {interval.p90:,.0f}"


def day_line(interval: Interval | None) -> str:
    """The same in one line."""
    return "never" if interval is None else f"{interval.p50:,.0f} ({interval.p10:,.0f} to {interval.p90:,.0f})"
