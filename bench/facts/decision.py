"""What a scenario comes to: dates, money, power and water of every option, who wins, and what would change that."""

from bench.facts.figure import Interval, Provenance, fact, require
from bench.facts.prediction import Prediction
from bench.facts.reliability import Goodput
from bench.facts.site import Power


@fact
class CostPart:
    """One line of a bill."""

    what: str
    cents: int
    basis: str


@fact
class Bill:
    """What an option costs until its work is done. The total is the sum of the parts, to the cent."""

    parts: tuple[CostPart, ...]
    total_cents: int

    def __post_init__(self) -> None:
        added = sum(part.cents for part in self.parts)
        require(added == self.total_cents, f"total_cents {self.total_cents} is not the sum of the parts, {added}")


@fact
class Milestone:
    """When an option has done so much work; days from today. None: beyond the horizon, or never."""

    name: str
    flops: float
    day: Interval | None
    reached_fraction: float  # of the samples, within the horizon


@fact
class Curve:
    """Work done by the end of a day, in model FLOPs."""

    days: tuple[float, ...]
    flops: tuple[Interval, ...]


@fact
class Rent:
    """The rental price at which two options cost the same, against the whole bill and against cash spent."""

    against_use_usd_per_device_hour: float  # the other's servers and building counted for the time of use
    against_cash_usd_per_device_hour: float  # counted in full
    paid_usd_per_device_hour: float
    own_usd_per_device_hour: float  # of the other's own devices, for the time of use


@fact
class Assumption:
    """A figure that an option rests on, 10th to 90th percentile, and the path that overrides it."""

    path: str
    low: float
    middle: float
    high: float
    provenance: Provenance
    source: str


@fact
class OptionForecast:
    """One option, worked out. Money at the medians; dates and speeds with their intervals."""

    name: str
    claim: str
    reading: tuple[str, ...]
    n_devices: int
    n_nodes: int
    device_names: tuple[str, ...]
    rented: bool
    predictions: tuple[Prediction, ...]  # of every group of equal devices
    tokens_per_s: Interval  # of steps, failures not counted
    goodput: Goodput
    effective_fraction: Interval
    simulated_fraction: Interval | None  # over the time of the work, at the median rates
    power: Power
    start_day: Interval
    ramp_days: Interval
    milestones: tuple[Milestone, ...]
    work_day: Interval | None  # when the work is done
    busy_days: float  # at the medians, from the first device to the end of the work
    bill: Bill | None  # None where the work is never done
    cash_cents: int | None  # the purchase in full and the electricity until then
    device_hours: float
    energy_j: float | None  # of the facility
    water_m3: float | None
    usd_per_million_tokens: float | None
    j_per_token: float | None
    curve: Curve
    assumptions: tuple[Assumption, ...]
    notes: tuple[str, ...]
    infeasible: tuple[str, ...]
    provenance: Provenance


@fact
class Crossing:
    """When the second option has done more than the first; days from today."""

    first: str
    second: str
    day: Interval | None  # among the samples that cross
    crossing_fraction: float  # of the samples, within the horizon
    second_first_fraction: float  # of the samples: the second ends the work first
    margin_days: Interval | None  # by which the second ends the work earlier; below 0: later
    ahead: tuple[str, ...]  # sentences: who is ahead from when


@fact
class Sensitivity:
    """One assumption moved to its 10th and 90th percentile, all others at their median."""

    assumption: str
    low: float
    middle: float
    high: float
    unit: str
    margin_low_days: float | None
    margin_high_days: float | None
    swing_days: float
    flips: bool  # the choice
    source: str


@fact
class Decision:
    """decision.json."""

    schema_version: int
    scenario: str
    target: str
    work_flops: float
    work_tokens: float
    options: tuple[OptionForecast, ...]
    crossing: Crossing | None
    break_even_flops: float | None  # work at which first and second end together; more favours the faster
    tornado: tuple[Sensitivity, ...]  # the largest swing first
    rent: Rent | None
    told: tuple[str, ...]
    not_told: tuple[str, ...]
