"""A measured run as charts."""

import math
from collections.abc import Sequence

from bench.facts.breakdown import Phase
from bench.facts.measurement import Measurement, RankSamples
from bench.facts.profile import DeviceProfile, ProbeKind, ProbeSamples
from bench.facts.units import GIB
from bench.report.chart import Axis, Chart, Kind, Series, Span
from bench.report.format import gibibytes, scaled, seconds, significant

MS = 1e3
MOST_BINS = 40
MOST_STEPS = 1500  # that a chart draws one by one; of more, every so many


def run_charts(m: Measurement) -> tuple[Chart, ...]:
    """Every picture of one measurement."""
    charts = [step_trace(m), step_distribution(m)]
    if m.breakdown and m.breakdown.ranks:
        charts.append(phases(m))
    if m.memory:
        charts.append(memory(m))
    return tuple(charts)


def step_trace(m: Measurement) -> Chart:
    """Every step in the order it was taken, warm-up and late steps marked."""
    rank = m.ranks[0]
    n_warmup, every = len(rank.warmup_s), math.ceil((len(rank.warmup_s) + len(rank.step_s)) / MOST_STEPS)
    steps = [*rank.warmup_s, *rank.step_s]
    shown = range(0, len(steps), every)
    late = [late for late in m.late_steps if late.step < len(rank.step_s)]
    edges = [n_warmup + sum(m.steps_per_window[: i + 1]) for i in range(len(m.steps_per_window) - 1)][:20]
    series = [Series("steps of rank 0", tuple(map(float, shown)), tuple(MS * steps[i] for i in shown))]
    if late:
        series.append(
            Series(
                "late steps, counted",
                tuple(float(n_warmup + one.step) for one in late),
                tuple(MS * one.step_s for one in late),
                Kind.POINTS,
                labels=tuple(f"step {one.step}, {one.at_s:.1f} s after the first: {seconds(one.step_s)}" for one in late),
                tone=1,
            )
        )
    thinned = f" One step in {every} is drawn." if every > 1 else ""
    return Chart(
        "steps",
        "Every step",
        f"{n_warmup} warm-up steps ({m.warmup_end}), then {len(rank.step_s)} timed ones in {len(m.steps_per_window)} windows; "
        f"median {seconds(m.step_s.median)}; {len(late)} late.{thinned}",
        Axis("step"),
        Axis("ms per step", from_zero=True),
        tuple(series),
        (Span(0, n_warmup - 0.5, "warm-up"), *(Span(edge - 0.5, edge - 0.5, "") for edge in edges)),
        "measured",
    )


def step_distribution(m: Measurement) -> Chart:
    """How often a step takes how long."""
    steps = [MS * s for s in m.ranks[0].step_s]
    low, high = min(steps), max(steps)
    n = max(1, min(MOST_BINS, round(math.sqrt(len(steps)) * 1.5)))
    width = (high - low) / n or 1e-3
    counts = [0] * n
    for s in steps:
        counts[min(n - 1, int((s - low) / width))] += 1
    middles = tuple(low + (i + 0.5) * width for i in range(n))
    labels = tuple(f"{c} steps from {x - width / 2:.3g} to {x + width / 2:.3g} ms" for x, c in zip(middles, counts, strict=True))
    return Chart(
        "distribution",
        "How long steps take",
        f"Half of the steps take {seconds(m.step_s.median)} or less, one in ten more than {seconds(m.step_s.p90)}, "
        f"one in a hundred more than {seconds(m.step_s.p99)}.",
        Axis("ms per step"),
        Axis("steps", from_zero=True),
        (Series("steps", middles, tuple(map(float, counts)), Kind.BARS, labels=labels),),
        (Span(MS * m.step_s.median, MS * m.step_s.median, "median"), Span(MS * m.step_s.p90, MS * m.step_s.p90, "90 %")),
        "measured",
    )


def phases(m: Measurement) -> Chart:
    """The phases of a step, a bar for every rank."""
    assert m.breakdown is not None
    ranks = m.breakdown.ranks
    series = tuple(
        Series(phase.value, tuple(MS * r.phase_s.get(phase, 0.0) for r in ranks), tuple(map(float, range(len(ranks)))), Kind.STACK, tone=i)
        for i, phase in enumerate(p for p in Phase if any(p in r.phase_s for r in ranks))
    )
    straggler = m.breakdown.straggler
    slow = f" Rank {straggler.rank} is the slowest by its own work, {straggler.ratio:.2f} x the median rank." if straggler else ""
    exposed = m.breakdown.exposed_communication_s
    waits = f" Communication that nothing hides: {seconds(exposed)}." if exposed is not None else ""
    return Chart(
        "phases",
        "Where a step goes, by rank",
        f"Medians over {m.breakdown.n_steps} steps after the timed ones.{waits}{slow}",
        Axis("ms"),
        Axis("", categories=tuple(f"rank {r.rank} on {r.host}"[-26:] for r in ranks)),
        series,
        provenance="measured",
    )


def memory(m: Measurement) -> Chart:
    """Bytes of every rank by what holds them."""
    kinds = ("parameters", "gradients", "optimizer", "activations")
    known = [(kind, f"{kind}_bytes") for kind in kinds if any(getattr(use, f"{kind}_bytes") for use in m.memory)]
    series = tuple(
        Series(name, tuple((getattr(u, key) or 0) / GIB for u in m.memory), tuple(map(float, range(len(m.memory)))), Kind.STACK, tone=i)
        for i, (name, key) in enumerate(known)
    )
    peak = max((_peak(r) for r in m.ranks), default=0)
    return Chart(
        "memory",
        "What fills the memory, by rank",
        f"Summed tensor by tensor; the peak of the fullest rank is {gibibytes(peak)}"
        f"{' (resident: torch counts no activations on a CPU)' if m.backend == 'cpu' else ''}.",
        Axis("GiB"),
        Axis("", categories=tuple(f"rank {use.rank}" for use in m.memory)),
        series,
        provenance="measured",
    )


def _peak(r: RankSamples) -> int:
    return r.peak_allocated_bytes or r.peak_reserved_bytes


def profile_charts(p: DeviceProfile) -> tuple[Chart, ...]:
    """The roofline with the products of the target's plan on it, and the collectives by size."""
    return tuple(chart for chart in (roofline(p), collectives(p)) if chart.series)


def roofline(p: DeviceProfile) -> Chart:
    """Rates of matrix products over their intensity, below the best product and the memory rate that were measured here."""
    products = [s for s in p.probes if s.kind is ProbeKind.MATMUL]
    memory_rates = [s.rate_per_s for s in p.probes if s.kind in (ProbeKind.COPY, ProbeKind.TRIAD) and s.cache != "warm"]
    series = []
    for i, precision in enumerate(sorted({s.precision for s in products})):
        mine = [s for s in products if s.precision is precision]
        size = {"fp32": 4, "fp8": 1}.get(precision.value, 2)
        x = tuple(s.work / (size * _elements(s.sizes)) for s in mine)
        labels = tuple(f"{s.name or 'grid'} {_shape(s.sizes)} {precision}: {scaled(s.rate_per_s, 'FLOP/s')}" for s in mine)
        y, low, high = (tuple(v / 1e9 for v in values) for values in _rates(mine))
        series.append(Series(f"{precision.value} products", x, y, Kind.POINTS, low, high, labels, tone=i))
        if memory_rates and x:
            best, rate = max(y), max(memory_rates) / 1e9
            knee = best / rate
            ends = (min(*x, knee) / 1.5, knee, max(*x, knee) * 1.5)
            series.append(Series(f"roof of {precision.value}", ends, (ends[0] * rate, best, best), tone=i))
    best_words = f"the best product reaches {significant(max((v for s in series for v in s.y), default=0.0))} GFLOP/s" if series else ""
    return Chart(
        "roofline",
        "Roofline of this device",
        f"Products of the plan's shapes and of a grid; {best_words}, "
        f"memory {scaled(max(memory_rates, default=0.0), 'B/s')} beyond the caches.",
        Axis("FLOP per byte of operands", is_log=True),
        Axis("GFLOP/s", is_log=True),
        tuple(series),
        provenance="measured",
    )


def _rates(probes: Sequence[ProbeSamples]) -> tuple[list[float], list[float], list[float]]:
    return [s.rate_per_s for s in probes], [s.rate_low_per_s for s in probes], [s.rate_high_per_s for s in probes]


def _elements(sizes: dict[str, int]) -> float:
    m, k, n = (float(sizes.get(axis, 1)) for axis in "mkn")
    return m * k + k * n + m * n


def _shape(sizes: dict[str, int]) -> str:
    return " x ".join(str(sizes[axis]) for axis in "mkn" if axis in sizes)


def collectives(p: DeviceProfile) -> Chart:
    """Bus bandwidth of every collective by size."""
    series = []
    for i, kind in enumerate(sorted({c.collective for c in p.collectives})):
        for axis in sorted({c.axis for c in p.collectives}):
            points = [c for c in p.collectives if c.collective is kind and c.axis is axis and c.bus_bytes_per_s > 0]
            n_ranks = max((c.n_ranks for c in points), default=0)
            points = [c for c in points if c.n_ranks == n_ranks]
            if points:
                x, y = tuple(float(c.size_bytes) for c in points), tuple(c.bus_bytes_per_s / 1e9 for c in points)
                series.append(Series(f"{kind.value} {axis.value.replace('_', ' ')}, {n_ranks} ranks", x, y, tone=i))
    best = max((v for s in series for v in s.y), default=0.0)
    return Chart(
        "collectives",
        "Collectives by size",
        f"Bus bandwidth as nccl-tests defines it, by {p.communication or 'no library'}; at most {significant(best)} GB/s.",
        Axis("bytes", is_log=True),
        Axis("GB/s", is_log=True),
        tuple(series),
        provenance="measured",
    )
