"""Where the measured step, its memory and its energy go, as a table."""

from collections.abc import Iterator

from bench.facts.breakdown import MemoryUse, Phase, RankPhases, StepBreakdown
from bench.facts.measurement import Measurement
from bench.report.format import gibibytes, percent, seconds
from bench.report.tables import Table

MOST_RANKS = 16  # rows; result.json has every rank


def breakdown_table(m: Measurement) -> Table | None:
    """Medians of the phases by rank; None where they were not measured."""
    b = m.breakdown
    if b is None or not b.ranks:
        return None
    header = ("rank", "host", *(phase.value for phase in Phase), "its own work", "exposed", "static memory")
    static = {use.rank: gibibytes(use.static_bytes) for use in m.memory}
    rows = tuple((*_phases(r), static.get(r.rank, "n/a")) for r in b.ranks[:MOST_RANKS])
    return Table(f"Where the measured step goes: medians of {b.n_steps} steps after the timed ones", header, rows, tuple(_notes(m, b)))


def _phases(r: RankPhases) -> tuple[str, ...]:
    phases = (seconds(r.phase_s[phase]) if phase in r.phase_s else "n/a" for phase in Phase)
    return (str(r.rank), r.host, *phases, _or_absent(r.own_s), _or_absent(r.exposed_s))


def _or_absent(value_s: float | None) -> str:
    return "n/a" if value_s is None else seconds(value_s)


def _notes(m: Measurement, b: StepBreakdown) -> Iterator[str]:
    if b.exposed_communication_s is None:
        yield f"Exposed communication: {b.exposed_by}."
    else:
        share = percent(b.exposed_communication_s / b.step_s if b.step_s else None)
        yield f"Exposed communication: {seconds(b.exposed_communication_s)}, {share} of the step, by {b.exposed_by}; beyond it ranks wait."
    if b.bubble_s is not None:
        share = percent(b.bubble_s / b.step_s if b.step_s else None)
        yield f"Bubble: {seconds(b.bubble_s)}, {share} of the step, mean over ranks: the time between the passes of a rank's own stages."
    s = b.straggler
    if s:
        yield f"Slowest: rank {s.rank} on {s.host}, {s.ratio:.2f} x the median rank's own work ({seconds(s.own_s)})."
    if len(b.ranks) > MOST_RANKS:
        yield f"{len(b.ranks) - MOST_RANKS} more ranks are in result.json."
    if m.memory:
        yield _memory(max(m.memory, key=lambda use: use.static_bytes))


def _memory(use: MemoryUse) -> str:
    static = (("parameters", use.parameters_bytes), ("gradients", use.gradients_bytes), ("optimizer", use.optimizer_bytes))
    parts = ", ".join(f"{gibibytes(value)} {name}" for name, value in static)
    if use.activations_bytes is None:
        return f"Memory of rank {use.rank}: {parts}; nothing here counts what activations take."
    tail = f"{use.n_retries} retries, {use.n_out_of_memory} out of memory" if use.n_retries is not None else "retries not counted"
    return f"Memory of rank {use.rank}: {parts}, {gibibytes(use.activations_bytes)} activations and all else at the peak; {tail}."
