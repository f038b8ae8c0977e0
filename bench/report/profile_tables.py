"""A device profile and a slice as tables, and as Markdown."""

from bench.facts.profile import (
    Cache,
    Collective,
    CollectivePoint,
    DeviceProfile,
    GroupAxis,
    ProbeKind,
    ProbeSamples,
    SliceMeasurement,
    SlicePart,
    Timing,
    WorkUnit,
)
from bench.facts.units import GIB, KIB, MIB
from bench.report.format import gibibytes, percent, scaled, seconds, significant
from bench.report.markdown import markdown_table
from bench.report.tables import Table

UNITS = {WorkUnit.FLOPS: "FLOP/s", WorkUnit.BYTES: "B/s", WorkUnit.CALLS: "calls/s", WorkUnit.PARAMETERS: "parameters/s"}
BINARY = ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))
CACHES = tuple(Cache)
MICROSECOND_LIMIT_S = 1e-3
MOST_ABSENT = 8  # of those left out, told one by one


def profile_tables(profile: DeviceProfile) -> tuple[Table, ...]:
    """Everything that was probed."""
    surfaces = [_surface(profile, precision) for precision in dict.fromkeys(p.precision for p in profile.probes if _is_grid(p))]
    groups = dict.fromkeys((c.axis, c.n_ranks) for c in profile.collectives)
    planned = [_plan_table(profile)] if any(map(_is_planned, profile.probes)) else []
    drawn = [_load_table(profile)] if profile.loads else []
    return (*surfaces, *planned, _probe_table(profile), *drawn, *(_collective_table(profile, axis, n) for axis, n in groups))


def profile_report(profile: DeviceProfile) -> str:
    """The whole profile as Markdown."""
    return "\n\n".join([f"# Profile of {profile.device_name}", *map(markdown_table, profile_tables(profile))]) + "\n"


def _is_grid(p: ProbeSamples) -> bool:
    return p.kind is ProbeKind.MATMUL and not p.name


def _is_planned(p: ProbeSamples) -> bool:
    return p.kind is ProbeKind.MATMUL and bool(p.name)


def _plan_table(profile: DeviceProfile) -> Table:
    by_shape: dict[tuple[str, ...], dict[Cache, ProbeSamples]] = {}
    for p in filter(_is_planned, profile.probes):
        sizes = (p.name, p.precision.value, *(f"{p.sizes.get(size, 1):,}" for size in ("n_batch", "m", "k", "n")))
        by_shape.setdefault(sizes, {})[p.cache] = p
    rows = tuple(
        (*sizes, *(f"{_rate(at[cache])} ({_time(at[cache].timing)})" if cache in at else "" for cache in CACHES))
        for sizes, at in by_shape.items()
    )
    header = ("product", "precision", "at once", "m", "k", "n", *(f"cache {cache}" for cache in CACHES))
    return Table(f"Products of plans for {profile.target} on {profile.device_name}", header, rows)


def _surface(profile: DeviceProfile, precision: str) -> Table:
    points = {(p.sizes["m"], p.sizes["k"], p.sizes["n"]): p for p in profile.probes if _is_grid(p) and p.precision == precision}
    widths = sorted({n for _, _, n in points})
    rows = tuple(
        (f"{m:,}", f"{k:,}", *(_rate(points[m, k, n]) if (m, k, n) in points else "" for n in widths))
        for m, k in sorted({(m, k) for m, k, _ in points})
    )
    header = ("m", "k", *(f"n = {n:,}" for n in widths))
    notes = ("Medians of the same operands again and again: in the cache as far as they fit.",)
    return Table(f"Matrix products m x k by k x n in {precision} on {profile.device_name}", header, rows, notes)


def _rate(p: ProbeSamples) -> str:
    return scaled(p.rate_per_s, UNITS[p.work_unit])


def _probe_table(profile: DeviceProfile) -> Table:
    rows = tuple(
        (
            p.kind.value,
            p.name or "-",
            ", ".join(f"{_size_name(name)} {_size(name, size)}" for name, size in p.sizes.items()),
            p.precision.value,
            p.cache.value,
            _time(p.timing),
            f"{_rate(p)}\n{_span(p)}",
        )
        for p in profile.probes
        if p.kind is not ProbeKind.MATMUL
    )
    nodes = f"{profile.n_nodes} node{'s' * (profile.n_nodes > 1)}"
    where = f"{profile.world_size} x {profile.backend} on {nodes}, {profile.threads_per_rank} CPU threads each"
    left_out = [f"left out: {a.what}: {a.reason}" for a in profile.absent]
    more = [f"left out: {len(left_out) - MOST_ABSENT} more, all in profile.json"] if len(left_out) > MOST_ABSENT else []
    notes = (
        f"One device, the others idle; {where}; products of plans for {profile.target}. Ranges: interval of the median.",
        *left_out[:MOST_ABSENT],
        *more,
        *(f"warning: {text}" for text in profile.warnings),
    )
    return Table(f"One {profile.device_name}", ("what", "which", "sizes", "precision", "cache", "time", "rate"), rows, notes)


def _load_table(profile: DeviceProfile) -> Table:
    rows = tuple(
        (
            load.what,
            scaled(load.rate_per_s, UNITS[load.work_unit]),
            _told(load.telemetry.power_w, "{:,.0f} W"),
            _told(load.telemetry.peak_power_w, "{:,.0f} W"),
            _told(load.telemetry.clock_hz, "{:,.0f} MHz", 1e-6),
            _told(load.telemetry.lowest_clock_hz, "{:,.0f} MHz", 1e-6),
            _told(load.telemetry.peak_temperature_c, "{:.0f} C"),
            ", ".join(load.telemetry.throttle_reasons) or _told(load.telemetry.throttled_fraction, "none"),
        )
        for load in profile.loads
    )
    header = ("kept busy by", "rate", "power", "highest", "clock", "lowest", "temperature", "held back by")
    return Table(f"What one {profile.device_name} draws, as {profile.loads[0].telemetry.source} tells", header, rows)


def _told(value: float | None, form: str, factor: float = 1.0) -> str:
    return "not told" if value is None else form.format(value * factor)


def _size_name(name: str) -> str:
    return name.replace("_", " ").replace("bytes", "array")


def _size(name: str, size: int) -> str:
    return binary_bytes(size) if name == "bytes" else f"{size:,}"


def _span(p: ProbeSamples) -> str:
    return f"{scaled(p.rate_low_per_s, '').strip()} to {scaled(p.rate_high_per_s, '').strip()}"


def _time(timing: Timing) -> str:
    return short_seconds(timing.median_s)


def short_seconds(value: float) -> str:
    """A duration that may be short.

    >>> short_seconds(4.2e-6), short_seconds(0.0123)
    ('4.20 us', '12.3 ms')
    """
    return f"{significant(value * 1e6)} us" if value < MICROSECOND_LIMIT_S else seconds(value)


def binary_bytes(value: float) -> str:
    """Bytes in the binary unit that suits them.

    >>> binary_bytes(1024), binary_bytes(268435456), binary_bytes(100)
    ('1 KiB', '256 MiB', '100 B')
    """
    for factor, unit in BINARY:
        if value >= factor:
            return f"{significant(value / factor).removesuffix('.00').removesuffix('.0')} {unit}"
    return f"{value:.0f} B"


def _collective_table(profile: DeviceProfile, axis: GroupAxis, n_ranks: int) -> Table:
    points = [c for c in profile.collectives if (c.axis, c.n_ranks) == (axis, n_ranks)]
    kinds = [kind for kind in Collective if any(c.collective is kind for c in points)]
    by_size: dict[int, dict[Collective, CollectivePoint]] = {}
    for c in points:
        by_size.setdefault(c.size_bytes, {})[c.collective] = c
    rows = tuple(
        (binary_bytes(size), *(_collective_cell(at[kind]) if kind in at else "" for kind in kinds)) for size, at in sorted(by_size.items())
    )
    wrong = [f"not valid: {c.collective} of {binary_bytes(c.size_bytes)} brought wrong numbers" for c in points if not c.correct]
    notes = ("Bus bandwidth and time, as nccl-tests define both.", *(wrong or ["The payload was right everywhere."]))
    title = f"Collectives over {n_ranks} ranks, {axis.value.replace('_', ' ')}, {profile.communication}"
    return Table(title, ("buffer", *(kind.value for kind in kinds)), rows, notes)


def _collective_cell(c: CollectivePoint) -> str:
    return f"{scaled(c.bus_bytes_per_s, 'B/s')}\n{_time(c.timing)}"


def slice_table(measured: SliceMeasurement) -> Table:
    """What one device of the big plan would do, as it did it here."""
    spec, plan = measured.spec, measured.spec.plan
    sizes = f"tp{plan.tensor_parallel_size} ep{plan.expert_parallel_size} cp{plan.context_parallel_size}"
    title = f"One device's share of {spec.target}, {sizes}, micro-batch {spec.micro_batch_size}, on {measured.device_name}"
    rows = (*_part_rows(f"{spec.n_layers} layer" + "s" * (spec.n_layers > 1), measured.layers), *_part_rows("ends", measured.ends))
    local = measured.local
    notes = (
        f"Widths: {local.n_heads} query and {local.n_kv_heads} key-value heads of {local.head_dim}, feed-forward {local.d_ff:,}, "
        f"{measured.n_experts_held} experts of {local.d_ff_expert:,}, vocabulary {local.vocab_size:,}, {local.seq_len:,} tokens of each "
        f"sequence of {spec.model.seq_len:,}; {spec.precision}, {measured.threads_per_rank} CPU threads.",
        f"Plan: {f'searched for {spec.cluster}' if spec.cluster else 'as given'}. Memory: {gibibytes(spec.needed_bytes)} estimated, "
        f"{gibibytes(measured.peak_bytes)} at its peak.",
        *measured.notes,
    )
    return Table(title, ("part", "phase", "time", "interval of the median", "rate", "samples"), rows, notes)


def slice_report(measured: SliceMeasurement) -> str:
    """The slice as Markdown."""
    return f"# Slice of {measured.spec.target}\n\n{markdown_table(slice_table(measured))}\n"


def _part_rows(name: str, part: SlicePart) -> tuple[tuple[str, ...], ...]:
    phases = (
        ("forward", part.forward, scaled(part.forward_flops / part.forward.median_s, "FLOP/s")),
        ("backward", part.backward, scaled(2 * part.forward_flops / part.backward.median_s, "FLOP/s")),
        ("optimizer", part.optimizer, scaled(part.n_parameters / part.optimizer.median_s, "parameters/s")),
    )
    return tuple((name, phase, _time(t), _interval(t), rate, str(len(t.samples_s))) for phase, t, rate in phases)


def _interval(t: Timing) -> str:
    return f"{short_seconds(t.low_s)} to {short_seconds(t.high_s)} (+-{percent((t.high_s - t.low_s) / 2 / t.median_s)})"
