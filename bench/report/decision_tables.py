"""A decision as tables and as its report."""

from collections.abc import Sequence

from bench.facts.decision import Assumption, Crossing, Decision, OptionForecast, Sensitivity
from bench.facts.site import CapAnswer, Power
from bench.report.format import count, percent, percent_span, scaled, significant, span
from bench.report.markdown import markdown_table
from bench.report.quantities import day_line, day_span, dollars, households, megawatt_hours, megawatts, millions, us_gallons
from bench.report.tables import Table

N_TOLD = 3  # assumptions on the terminal
SURE = 0.6  # of the draws, from which on one option is named
N_REPORTED = 12  # in the report
MODEL = (
    "A model's answer, not a measurement: dates and speeds with 10-90 % intervals, money, power and water at the medians. "
    "Day 0 is the day of the choice. Every assumption is a figure with its source in conf/ and can be overridden."
)


def decision_tables(decision: Decision) -> tuple[Table, ...]:
    """What the terminal shows: options, calendar, race and the assumptions that matter most; details of a single option."""
    shared = (options_table(decision), calendar_table(decision))
    if decision.crossing is None:
        return (*shared, *map(option_table, decision.options))
    return (*shared, race_table(decision), tornado_table(decision, N_TOLD))


def decision_report(decision: Decision) -> str:
    """The whole decision as Markdown."""
    tables = [options_table(decision), calendar_table(decision)]
    if decision.crossing is not None:
        tables += [race_table(decision), tornado_table(decision, N_REPORTED)]
    tables += [option_table(option) for option in decision.options]
    tables += [curve_table(decision), *map(assumptions_table, decision.options)]
    return "\n\n".join([f"# {decision.scenario}: {decision.target}", MODEL, *map(markdown_table, tables)]) + "\n"


def options_table(decision: Decision) -> Table:
    """Every option beside the others."""
    header = (
        *("option", "devices", "million\ntokens/s", "effective\ntime", "power, MW\npeak, mean", "million gal\na day"),
        *("work done\non day", "million USD\nfor the work", "USD per million\ntokens", "J per\ntoken"),
    )
    rows = tuple(_option_row(option) for option in decision.options)
    work = f"The work: {count(decision.work_tokens)} tokens of {decision.target}, {decision.work_flops:.3g} FLOPs."
    what = "Bought devices are written off over their life: the cash until then is in the tables of the options."
    bad = tuple(f"infeasible: {o.name}: {text}" for o in decision.options for text in o.infeasible)
    return Table(f"{decision.scenario}: {len(decision.options)} options", header, rows, (*bad, work, what, MODEL))


def _option_row(o: OptionForecast) -> tuple[str, ...]:
    return (
        f"{o.name}\n{'rented' if o.rented else 'built'}",
        f"{o.n_devices:,}\n{', '.join(o.device_names)}",
        span(o.tokens_per_s, 1e6),
        percent_span(o.effective_fraction),
        f"{significant(megawatts(o.power.peak_w))}\n{significant(megawatts(o.power.average_w))}{_capped(o.power)}",
        significant(us_gallons(o.power.water_m3_per_day) / 1e6),
        "never" if o.infeasible else day_span(o.work_day),
        "n/a" if o.bill is None else millions(o.bill.total_cents),
        "n/a" if o.usd_per_million_tokens is None else significant(o.usd_per_million_tokens),
        "n/a" if o.j_per_token is None else significant(o.j_per_token),
    )


def _capped(power: Power) -> str:
    if power.cap_answer is CapAnswer.NONE:
        return ""
    how = f"{power.clock_fraction:.0%} clock" if power.cap_answer is CapAnswer.CLOCKS else f"{power.n_devices_powered:,} on"
    return f"\ncapped: {how}"


def calendar_table(decision: Decision) -> Table:
    """The day on which each option reaches each milestone."""
    names = [m.name for m in decision.options[0].milestones]
    header = ("option", "first devices", "all after", *names, "the work")
    rows = tuple(
        (o.name, day_span(o.start_day), f"{day_span(o.ramp_days)} more", *(day_span(m.day) for m in o.milestones), day_span(o.work_day))
        for o in decision.options
    )
    sizes = ", ".join(f"{m.name} {m.flops:.3g} FLOPs" for m in decision.options[0].milestones)
    return Table("Calendar: days from the choice", header, rows, (f"Each option alone, from its own start: {sizes}.",))


def race_table(decision: Decision) -> Table:
    """Two options against one another."""
    c = decision.crossing
    assert c is not None
    ends = f"{c.second} ends the work first in {percent(c.second_first_fraction, 0)} of the draws"
    rows = [
        ("crossing", f"day {day_line(c.day)}: {c.second} has done more than {c.first}; in {percent(c.crossing_fraction, 0)} of the draws"),
        ("the work", f"{ends}, {day_line(c.margin_days)} days earlier (below 0: later)"),
        ("choice", f"{_choice(c)}; {_turns(decision)}"),
        *(("who is ahead", text) for text in c.ahead),
    ]
    if rent := decision.rent:
        use, cash = rent.against_use_usd_per_device_hour, rent.against_cash_usd_per_device_hour
        own, paid = rent.own_usd_per_device_hour, rent.paid_usd_per_device_hour
        rows += [
            ("rental price", f"${paid:.2f} per device-hour assumed; an hour of a device of {c.second} wears off ${own:.2f}"),
            ("break-even", f"at ${use:.2f} {c.first} costs as much as the use of {c.second}; at ${cash:.2f}, as all cash until then"),
        ]
    return Table(f"The race: {c.first} against {c.second}", ("", ""), tuple(rows))


def _choice(c: Crossing) -> str:
    """Who ends this work first, and how surely."""
    name, chance = (c.second, c.second_first_fraction) if c.second_first_fraction > 0.5 else (c.first, 1 - c.second_first_fraction)
    return f"{name} for this work, {chance:.0%} sure" if chance >= SURE else "too close to call for this work"


def _turns(decision: Decision) -> str:
    c = decision.crossing
    if decision.break_even_flops is None or c is None:
        return "the second is never ahead within the horizon"
    return f"below {decision.break_even_flops:.3g} FLOPs {c.first} ends first, above it {c.second} (medians)"


def tornado_table(decision: Decision, n: int) -> Table:
    """The assumptions that move the race most, largest first."""
    header = ("assumption", "10 %, median, 90 %", "days that the second\nends earlier", "swing,\ndays", "flips\nthe choice", "source")
    rows = tuple(_sensitivity_row(s) for s in decision.tornado[:n])
    return Table(f"What matters most: {min(n, len(decision.tornado))} of {len(decision.tornado)} assumptions", header, rows)


def _sensitivity_row(s: Sensitivity) -> tuple[str, ...]:
    ends = [("never" if x is None else f"{x:,.0f}") for x in (s.margin_low_days, s.margin_high_days)]
    values = " / ".join(significant(x) for x in (s.low, s.middle, s.high))
    return (s.assumption, f"{values} {s.unit}", " to ".join(ends), f"{s.swing_days:,.1f}", "yes" if s.flips else "no", s.source)


def option_table(o: OptionForecast) -> Table:
    """One option in full."""
    rows = (
        ("claim", o.claim),
        *(("reading", text) for text in o.reading),
        ("devices", f"{o.n_devices:,} in {o.n_nodes:,} nodes, {', '.join(o.device_names)}; {o.provenance} at the weakest"),
        *_goodput_rows(o),
        *_power_rows(o.power),
        *_money_rows(o),
    )
    notes = (*(f"infeasible: {text}" for text in o.infeasible), *o.notes)
    return Table(f"{o.name} in full", ("", ""), rows, notes)


def _goodput_rows(o: OptionForecast) -> list[tuple[str, str]]:
    g = o.goodput
    simulated = "not simulated" if o.simulated_fraction is None else f"{percent(o.simulated_fraction.p50)} simulated"
    first_order = "n/a" if g.small_loss_fraction is None else percent(g.small_loss_fraction)
    valid = "within 1 % of the exact form" if g.first_order_valid else "not valid here: losses are not small"
    return [
        ("interruptions", f"{significant(g.interruptions_per_day)} a day, every {significant(g.mtbf_s / 60)} minutes"),
        (
            "checkpoint",
            f"{scaled(g.checkpoint_bytes, 'B')}, every {significant(g.interval_s)} s, training waits {significant(g.blocking_s)} s, "
            f"safe after {significant(g.lag_s)} s more; {significant(g.downtime_s)} s to notice and restart",
        ),
        ("effective time", f"{percent(g.effective_fraction)} in closed form, {simulated}, slow nodes not counted"),
        ("first order", f"{first_order}, {valid}"),
        ("with slow nodes", percent_span(o.effective_fraction).replace("\n", ", ")),
    ]


def _power_rows(p: Power) -> list[tuple[str, str]]:
    cap = "none" if p.cap_w is None else f"{significant(megawatts(p.cap_w))} MW, {_cap_answer(p)}"
    return [
        ("power", f"{significant(megawatts(p.peak_w))} MW peak, {significant(megawatts(p.average_w))} MW mean, of the facility"),
        ("swing", f"{significant(megawatts(p.swing_w))} MW between computing and waiting"),
        ("cap", cap),
        ("households", f"{significant(households(p.peak_w))} of the US mean at the peak"),
        ("water", f"{significant(us_gallons(p.water_m3_per_day))} US gallons a day at the mean power"),
    ]


def _cap_answer(p: Power) -> str:
    if p.cap_answer is CapAnswer.NONE:
        return "not reached"
    return f"met by {p.cap_answer}: {p.clock_fraction:.0%} clock, {p.n_devices_powered:,} devices, {p.speed_fraction:.0%} speed"


def _money_rows(o: OptionForecast) -> Sequence[tuple[str, str]]:
    if o.bill is None or o.cash_cents is None or o.energy_j is None or o.water_m3 is None:
        return [("money", "n/a: the work is never done")]
    parts = [(part.what, f"{dollars(part.cents)}: {part.basis}") for part in o.bill.parts]
    return [
        *parts,
        ("for the work", f"{dollars(o.bill.total_cents)}; cash until then {dollars(o.cash_cents)}"),
        ("used", f"{significant(o.busy_days)} days of all devices, {o.device_hours:,.0f} device-hours"),
        ("energy, water", f"{significant(megawatt_hours(o.energy_j))} MWh, {significant(us_gallons(o.water_m3) / 1e6)} million US gallons"),
    ]


def assumptions_table(o: OptionForecast) -> Table:
    """Every figure that an option rests on, with its source."""
    header = ("override", "10 %, median, 90 %", "known by", "source")
    rows = tuple((a.path, _values(a), a.provenance.value, a.source) for a in o.assumptions)
    return Table(f"{o.name}: what it rests on", header, rows)


def _values(a: Assumption) -> str:
    values = (a.middle,) if a.low == a.high else (a.low, a.middle, a.high)
    return " / ".join(f"{value:.4g}" for value in values)


def curve_table(decision: Decision) -> Table:
    """Work done against the calendar, with its band."""
    days = decision.options[0].curve.days[::5]
    header = ("day", *(o.name for o in decision.options))
    rows = tuple((f"{day:,.0f}", *(span(o.curve.flops[5 * i], 1e24) for o in decision.options)) for i, day in enumerate(days))
    return Table("Work done by the end of a day, 1e24 FLOPs", header, rows)
