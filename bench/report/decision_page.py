"""A decision as a page: the race as curves with bands, what would turn it, and every option."""

from bench.facts.decision import Decision, OptionForecast
from bench.facts.figure import Interval
from bench.report.chart import Axis, Chart, Kind, Series, Span
from bench.report.decision_tables import MODEL, assumptions_table, calendar_table, option_table, options_table, race_table, tornado_table
from bench.report.format import count
from bench.report.html import Figure, Section, page
from bench.report.quantities import day_line, millions

UNIT_FLOPS = 1e24
N_BARS = 8
SHOWN_WORKS = 2.0  # the race is shown until so many times the work is done


def decision_page(decision: Decision) -> str:
    """The page's text."""
    work = f"{count(decision.work_tokens)} tokens of {decision.target}"
    return page(f"{decision.scenario}: {decision.target}", f"The work: {work}", decision_figures(decision), decision_sections(decision))


def decision_figures(decision: Decision) -> tuple[Figure, ...]:
    """What the page begins with: the crossing, and the end of every option."""
    found = [_end(option) for option in decision.options]
    if c := decision.crossing:
        sure = f"{c.second} has done more than {c.first}; in {c.crossing_fraction:.0%} of the draws"
        found.insert(0, Figure("crossing on day", *_day_and_interval(c.day, sure), "predicted"))
    return tuple(found[:6])


def _day_and_interval(day: Interval | None, more: str) -> tuple[str, str]:
    """The median in large, its interval among the words."""
    value, _, interval = day_line(day).partition(" (")
    return value, f"10-90 %: {interval.rstrip(')')}; {more}" if interval else more


def _end(option: OptionForecast) -> Figure:
    money = "n/a" if option.bill is None else f"{millions(option.bill.total_cents)} million USD"
    more = f"{money}; {option.n_devices:,} devices"
    return Figure(f"{option.name}: done on day", *_day_and_interval(option.work_day, more), "predicted")


def decision_sections(decision: Decision) -> list[Section]:
    """The parts of the page."""
    sections = [Section("Options", MODEL, (race_chart(decision),), (options_table(decision), calendar_table(decision)))]
    if decision.crossing:
        tables = (race_table(decision), tornado_table(decision, len(decision.tornado)))
        sections.append(
            Section("The race", "One assumption moved at a time, all others at their medians.", (tornado_chart(decision),), tables)
        )
    rests = "Path of the override, in SI units; datasheets of devices left out."
    return [
        *sections,
        Section("Every option in full", "", (), tuple(map(option_table, decision.options)), is_folded=True),
        Section("What the options rest on", rests, (), tuple(map(assumptions_table, decision.options)), is_folded=True),
    ]


def race_chart(decision: Decision) -> Chart:
    """Work done against the calendar, 10 to 90 %, up to twice the work: what counts is who has done it first."""
    c = decision.crossing
    spans = (Span(c.day.p10, c.day.p90, f"{c.second} overtakes {c.first}"),) if c and c.day else ()
    curves = tuple(_curve(option, tone, SHOWN_WORKS * decision.work_flops) for tone, option in enumerate(decision.options))
    last = max(curve.x[-1] for curve in curves)
    ends = "; ".join(f"{o.name} on day {day_line(o.work_day)}" for o in decision.options)
    return Chart(
        "race",
        "Work done against the calendar",
        f"The work of {decision.work_flops:.3g} FLOPs is done by {ends}. Bands are 10-90 %; nothing is shown beyond twice the work.",
        Axis("days from the choice"),
        Axis("1e24 model FLOPs", from_zero=True),
        (*curves, Series("the work", (0.0, last), (decision.work_flops / UNIT_FLOPS,) * 2, dotted=True, tone=7)),
        spans,
        provenance="predicted",
    )


def _curve(option: OptionForecast, tone: int, most_flops: float) -> Series:
    kept = [(day, at) for day, at in zip(option.curve.days, option.curve.flops, strict=True) if at.p50 <= most_flops]
    return Series(
        option.name,
        tuple(day for day, _ in kept),
        tuple(at.p50 / UNIT_FLOPS for _, at in kept),
        low=tuple(at.p10 / UNIT_FLOPS for _, at in kept),
        high=tuple(min(at.p90, most_flops) / UNIT_FLOPS for _, at in kept),
        dotted=True,
        tone=tone,
    )


def tornado_chart(decision: Decision) -> Chart:
    """How far each assumption moves the margin between its 10th and 90th percentile."""
    kept = decision.tornado[:N_BARS]
    swings = tuple(s.swing_days for s in kept)
    labels = tuple(f"{s.assumption}: {s.swing_days:.0f} days{', flips the choice' if s.flips else ''}" for s in kept)
    return Chart(
        "tornado",
        "What moves the margin",
        f"Most of all {kept[0].assumption}, by {kept[0].swing_days:.0f} days.",
        Axis("days of margin, from the 10th to the 90th percentile"),
        Axis("", categories=tuple(s.assumption for s in kept)),
        (Series("swing", swings, tuple(map(float, range(len(kept)))), Kind.STACK, labels=labels),),
        provenance="predicted",
    )
