"""A comparison as tables: what differed, then who is faster."""

from collections.abc import Sequence

from bench.facts.comparison import Comparison, Contrast, Difference, Verdict
from bench.facts.figure import Provenance
from bench.report.format import gibibytes, percent, scaled
from bench.report.tables import Table

ABSENT = "-"
MOST_SHOWN = 70  # characters of a value
FINDS_IT = 0.95  # of such comparisons; less is said


def comparison_tables(comparisons: Sequence[Comparison]) -> tuple[Table, ...]:
    """For every comparison what differed, then the verdicts of all."""
    return (*(difference_table(c) for c in comparisons), verdict_table(comparisons))


def difference_table(c: Comparison) -> Table:
    """What was not the same in two runs."""
    rows = tuple((d.path, _shown(d, d.first), _shown(d, d.second)) for d in c.differences)
    notes = tuple(f"warning: unlike runs, compared by force: {text}" for text in c.unlike)
    nothing = () if rows else ("Nothing known differed: configuration, versions, host, driver, variables.",)
    return Table(f"What differed: {c.second} against {c.first}", ("what", c.first, c.second), rows, (*nothing, *notes))


def verdict_table(comparisons: Sequence[Comparison]) -> Table:
    """Faster, slower, or no telling."""
    first = comparisons[0].first
    header = (f"against {first}", "verdict", "change of tokens/s", "interval", "noise floor", "launches", "gate")
    rows = tuple((c.second, c.contrast.verdict.value, *_effect(c.contrast), _gate(c)) for c in comparisons)
    return Table(f"Compared: tokens/s against {first}", header, rows, tuple(_notes(comparisons)))


def _effect(c: Contrast) -> tuple[str, ...]:
    change, low, high = (f"{100 * value:+.2f} %" for value in (c.change_fraction, c.low, c.high))
    return change, f"{low} to {high} ({c.confidence:.0%})", f"+-{percent(c.noise_floor_fraction, 2)}", "{} and {}".format(*c.n_launches)


def _gate(c: Comparison) -> str:
    if c.gate_fraction is None:
        return "none"
    return f"{100 * c.gate_fraction:g} %: {'tripped' if c.is_gated else 'passed'}"


def _notes(comparisons: Sequence[Comparison]) -> list[str]:
    contrasts = [c.contrast for c in comparisons]
    notes = list(dict.fromkeys(_between(c) for c in contrasts))
    if any(c.verdict is Verdict.CANNOT_TELL for c in contrasts):
        notes.append("Cannot tell: the interval holds no change, which is not to say that there is none.")
    notes += list(dict.fromkeys(_missed(c) for c in comparisons if c.contrast.power < FINDS_IT))
    if len(comparisons) > 1:
        notes.append(f"{len(comparisons)} comparisons, each with its own chance of a false verdict: 1 in 20 at 95 %.")
    return notes


def _missed(c: Comparison) -> str:
    """How often a change that matters passes unseen, and what would see it."""
    of, n = c.contrast, c.contrast.n_launches_needed
    what, missed = f"{100 * of.sought_fraction:g} %", 100 * (1 - of.power)
    way = (
        f"measure.launches={n} on both sides would miss it in 5 at most"
        if n
        else "20 launches would not do: let the machine do nothing else"
    )
    change = "A change of" if c.gate_fraction is None else "warning: a loss of"
    return f"{change} {what} would be missed in {missed:.0f} of 100 such comparisons; {way}."


def _between(c: Contrast) -> str:
    spread = f"Launches differ by {percent(c.between_launch.value, 2)} (one standard deviation), {c.between_launch.provenance.value}"
    if c.between_launch.provenance is Provenance.MEASURED:
        return f"{spread}: {c.between_launch.source}."
    return f"{spread}, not measured: {c.between_launch.source}. Runs with measure.launches=3 on both sides measure it."


def _shown(d: Difference, value: str) -> str:
    if not value:
        return ABSENT
    if d.path.endswith("_hz"):
        return scaled(float(value), "Hz")
    if d.path.endswith("_bytes"):
        return gibibytes(float(value))
    return value if len(value) <= MOST_SHOWN else value[: MOST_SHOWN - 3] + "..."
