"""Options against one another: when each is done, who is ahead when, what it costs, and which assumption would change the choice."""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.cost.assumptions import assumptions_of
from bench.cost.draws import interval_of
from bench.cost.goodput import AGREEMENT
from bench.cost.layout import Array
from bench.cost.money import bill, electricity_part, hourly_usd, purchase_parts, rental_parts, use_parts
from bench.cost.option import (
    COMMON,
    Entry,
    Scores,
    effective,
    goodput_of,
    own_assumptions,
    paced,
    power_of,
    provenance_of,
    tokens_per_s,
    value_of,
    wide_area,
)
from bench.cost.race import crossing_day, day_of, full_days
from bench.cost.uncertainty import NORMAL_P90
from bench.facts.decision import Bill, Crossing, Curve, Milestone, OptionForecast, Rent, Sensitivity
from bench.facts.figure import Interval
from bench.facts.reliability import Goodput
from bench.facts.scenario import Scenario
from bench.facts.units import CENTS_PER_USD, SECONDS_PER_DAY, SECONDS_PER_HOUR

N_CURVE = 60  # points of a curve
LOOKED_AT = (30, 60, 90, 120, 180, 365)  # days at which it is told who is ahead


def option_forecast(entry: Entry, scenario: Scenario, scores: Scores, simulated: Interval | None) -> OptionForecast:
    """One option, worked out. `simulated` is the effective fraction by simulation, at the median rates."""
    pace, good, watts = paced(entry, scores), goodput_of(entry), power_of(entry)
    done = _milestone("the work", scenario.work_flops.value, pace, scenario.horizon_days)
    used_days = _used_days(entry, scenario)
    device_s = entry.option.n_devices * used_days * SECONDS_PER_DAY
    energy = watts.average_w * used_days * SECONDS_PER_DAY
    total = _bill(entry, used_days, energy)
    tokens = scenario.work_flops.value / entry.flops_per_token
    never = done.day is None
    return OptionForecast(
        name=entry.option.name,
        claim=entry.option.claim,
        reading=entry.option.reading,
        n_devices=entry.option.n_devices,
        n_nodes=entry.option.n_nodes,
        device_names=tuple(dict.fromkeys(group.cluster.device.name for group in entry.option.groups.values())),
        rented=entry.option.rental is not None,
        predictions=entry.predictions,
        tokens_per_s=interval_of(tokens_per_s(entry, scores)),
        goodput=good,
        effective_fraction=interval_of(effective(entry, scores)),
        simulated_fraction=simulated,
        power=watts,
        start_day=_interval(pace[1]),
        ramp_days=_interval(pace[2]),
        milestones=tuple(_milestone(name, at.value, pace, scenario.horizon_days) for name, at in scenario.milestones_flops.items()),
        work_day=done.day,
        busy_days=0.0 if never else used_days,
        bill=None if never else total,
        cash_cents=None if never else _cash_cents(entry, energy, total),
        device_hours=0.0 if never else device_s / SECONDS_PER_HOUR,
        energy_j=None if never else energy,
        water_m3=None if never else energy * entry.option.site.water_m3_per_j.value,
        usd_per_million_tokens=None if never else total.total_cents / CENTS_PER_USD / tokens * 1e6,
        j_per_token=None if never else energy / tokens,
        curve=_curve(pace, scenario.horizon_days),
        assumptions=assumptions_of(entry.option),
        notes=(*_notes(entry), *_beyond_closed_form(good, simulated)),
        infeasible=tuple(text for text in (good.infeasible, watts.infeasible) if text),
        provenance=provenance_of(entry),
    )


def _interval(samples: Array) -> Interval:
    return interval_of(np.asarray(samples))


def _milestone(name: str, flops: float, pace: tuple[Array, Array, Array], horizon_days: float) -> Milestone:
    days = day_of(np.asarray(flops), *pace)
    finite = bool(np.isfinite(days).all())
    return Milestone(
        name=name, flops=flops, day=interval_of(days) if finite else None, reached_fraction=float(np.mean(days <= horizon_days))
    )


def _used_days(entry: Entry, scenario: Scenario) -> float:
    """Days of full capacity from the start to the end of the work, at the medians; 0 where it never ends."""
    pace = paced(entry, {})
    end = day_of(np.asarray(scenario.work_flops.value), *pace)
    return float(full_days(end, pace[1], pace[2])[0]) if np.isfinite(end).all() else 0.0


def _bill(entry: Entry, used_days: float, energy_j: float) -> Bill:
    """What the work wears off or rents."""
    option = entry.option
    if option.rental:
        return bill(rental_parts(option.rental, option.n_devices * used_days * SECONDS_PER_DAY / SECONDS_PER_HOUR))
    assert option.purchase is not None
    worn = use_parts(option.purchase, option.n_devices, used_days * SECONDS_PER_DAY)
    return bill([*worn, electricity_part(option.site, energy_j)])


def _cash_cents(entry: Entry, energy_j: float, total: Bill) -> int:
    """What is paid until the work is done, whatever is left of it then."""
    option = entry.option
    if option.purchase is None:
        return total.total_cents
    return bill([*purchase_parts(option.purchase, option.n_devices), electricity_part(option.site, energy_j)]).total_cents


def _curve(pace: tuple[Array, Array, Array], horizon_days: float) -> Curve:
    days = np.linspace(0.0, horizon_days, N_CURVE + 1)
    return Curve(
        days=tuple(float(day) for day in days),
        flops=tuple(interval_of(np.atleast_1d(pace[0] * full_days(np.asarray(day), pace[1], pace[2]))) for day in days),
    )


def _notes(entry: Entry) -> tuple[str, ...]:
    """What the steps of this option leave out or rest on."""
    line, told = wide_area(entry), []
    if line:
        what = "sites fail apart" if line.independent else "one failure stops all sites"
        told.append(
            f"an exchange between {entry.n_sites} sites takes {line.exchange_s:.3g} s, {line.exposed_s_per_step:.3g} s of it in every "
            f"step; {line.speed_fraction:.0%} of the speed is left; {what}"
        )
    if len(entry.predictions) > 1:
        told.append("unlike devices: each kind trains its share of the batch in its own plan; speeds add up, waiting is not counted")
    return tuple(told)


def _beyond_closed_form(good: Goodput, simulated: Interval | None) -> tuple[str, ...]:
    """What the simulation sees and the closed form does not, where they are more than 1 % apart."""
    if simulated is None or abs(simulated.p50 / good.effective_fraction - 1) <= AGREEMENT:
        return ()
    apart = f"{simulated.p50:.1%} simulated against {good.effective_fraction:.1%}"
    return (f"the closed form is not valid here: {apart}; spares run out, or copies are not safe in time",)


def crossing(first: Entry, second: Entry, scenario: Scenario, scores: Scores) -> Crossing:
    """When the second has done more than the first, and which ends the work first."""
    a, b = paced(first, scores), paced(second, scores)
    day = crossing_day(a, b, scenario.horizon_days)
    crosses = np.isfinite(day)
    margin = margin_days(first, second, scenario, scores)
    known = np.isfinite(margin)
    return Crossing(
        first=first.option.name,
        second=second.option.name,
        day=interval_of(day[crosses]) if crosses.any() else None,
        crossing_fraction=float(crosses.mean()),
        second_first_fraction=float(np.mean(margin > 0)),
        margin_days=interval_of(margin[known]) if known.any() else None,
        ahead=_ahead(first.option.name, second.option.name, a, b, scenario.horizon_days),
    )


def margin_days(first: Entry, second: Entry, scenario: Scenario, scores: Scores) -> Array:
    """Days by which the second ends the work earlier; below 0: later. Infinite where one never ends, 0 where neither does."""
    work = np.asarray(scenario.work_flops.value)
    a, b = np.broadcast_arrays(day_of(work, *paced(first, scores)), day_of(work, *paced(second, scores)))
    known = np.isfinite(a) | np.isfinite(b)
    return np.asarray(np.subtract(a, b, out=np.zeros(a.shape), where=known))


def _ahead(first: str, second: str, a: tuple[Array, Array, Array], b: tuple[Array, Array, Array], horizon: float) -> tuple[str, ...]:
    told = []
    for day in (d for d in LOOKED_AT if d <= horizon):
        done_a, done_b = (pace[0] * full_days(np.asarray(float(day)), pace[1], pace[2]) for pace in (a, b))
        share = float(np.mean(done_b > done_a))
        name, chance = (second, share) if share > 0.5 else (first, 1 - share)
        told.append(f"day {day}: {name} has done more, {chance:.0%} sure")
    return tuple(told)


def tornado(first: Entry, second: Entry, scenario: Scenario) -> tuple[Sensitivity, ...]:
    """Every assumption at its 10th and 90th percentile, the others at their medians; the largest swing of the margin first."""
    owner: Mapping[str, Entry] = {
        **dict.fromkeys(COMMON, second),
        **{name: entry for entry in (first, second) for name in own_assumptions(entry)},
    }
    found = [_sensitivity(name, entry, first, second, scenario) for name, entry in owner.items()]
    return tuple(sorted(found, key=lambda s: -s.swing_days))


def _sensitivity(name: str, owner: Entry, first: Entry, second: Entry, scenario: Scenario) -> Sensitivity:
    ends = np.array([-NORMAL_P90, 0.0, NORMAL_P90])
    low, _, high = (float(x) for x in margin_days(first, second, scenario, {name: ends}) * np.ones(3))
    values = [value_of(owner, name, float(end)) for end in ends]
    swing = abs(high - low) if np.isfinite([low, high]).all() else 0.0
    return Sensitivity(
        assumption=name,
        low=values[0][0],
        middle=values[1][0],
        high=values[2][0],
        unit=values[1][1],
        margin_low_days=low if np.isfinite(low) else None,
        margin_high_days=high if np.isfinite(high) else None,
        swing_days=swing,
        flips=min(low, high) < 0 < max(low, high),
        source=values[1][2],
    )


def rent_break_even(first: OptionForecast, second: OptionForecast, paid_usd: float) -> Rent | None:
    """The rental price of the first at which it costs as much as the second; None where one of them never ends."""
    if first.bill is None or second.bill is None or second.cash_cents is None:
        return None
    device_s = first.device_hours * SECONDS_PER_HOUR
    return Rent(
        against_use_usd_per_device_hour=hourly_usd(second.bill.total_cents, device_s),
        against_cash_usd_per_device_hour=hourly_usd(second.cash_cents, device_s),
        paid_usd_per_device_hour=paid_usd,
        own_usd_per_device_hour=hourly_usd(second.bill.total_cents, second.device_hours * SECONDS_PER_HOUR),
    )


def break_even_flops(first: Entry, second: Entry, scenario: Scenario) -> float | None:
    """Work at which both end on the same day, at the medians; None where the second is never ahead within the horizon."""
    a, b = paced(first, {}), paced(second, {})
    day = crossing_day(a, b, scenario.horizon_days)
    return float((a[0] * full_days(day, a[1], a[2]))[0]) if np.isfinite(day).all() else None


def assumptions(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Every name that scores are drawn for."""
    return (*COMMON, *(name for entry in entries for name in own_assumptions(entry)))
