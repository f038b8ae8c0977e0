"""A result as tables: what was measured, what is projected. Text only; terminal.py and markdown.py draw them."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.facts.breakdown import DeviceTelemetry, Telemetry
from bench.facts.checkpoint import TrainingLog
from bench.facts.measurement import Measurement, RankSamples, Spread, Utilization
from bench.facts.plan import ParallelPlan
from bench.facts.prediction import Prediction, StepPart
from bench.facts.result import Result
from bench.report.format import count, gibibytes, percent, percent_span, scaled, seconds, significant, span


@dataclass(frozen=True)
class Table:
    """A title, a header, rows of equal length, and sentences below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def measured_table(result: Result) -> Table:
    """What the devices here did."""
    m, u = result.measurement, result.utilization
    rows = (
        ("model", f"{m.model.name}, {scaled(m.n_parameters, '')} parameters, sequences of {m.model.seq_len}"),
        ("devices", f"{m.world_size} x {m.device_name} ({m.backend}), {m.threads_per_rank} CPU threads each"),
        ("plan", _local_plan(m)),
        ("tokens/s", f"{_number(m)} ({significant(m.tokens_per_s.low, 4)} to {significant(m.tokens_per_s.high, 4)})"),
        ("spread", _spread(m.spread)),
        ("tokens/s per device", significant(m.tokens_per_s_per_device, 4)),
        ("step time", _step_times(m)),
        ("model FLOP/s per device", f"{scaled(u.flops_per_s_per_device, 'FLOP/s')} (causal attention halved)"),
        ("MFU", _mfu(u)),
        ("memory per rank", _memory(m.ranks)),
        ("set-up, first step, warm-up", _before(m)),
        ("power, clocks", _telemetry(m.telemetry)),
        ("loss, gradient norm", f"{_finite(m.loss_first)} to {_finite(m.loss_last)}, {_finite(m.grad_norm)}"),
        *([("state of the training", _training(m.training))] if m.training else []),
    )
    notes = tuple(f"not valid: {text}" for text in m.invalid) + tuple(f"warning: {w.text}" for w in result.warnings)
    return Table(f"Measured: {m.tokens_per_s.n_steps} steps on {result.environment.host}", ("", ""), rows, (*notes, *_unknown(m)))


def _unknown(m: Measurement) -> tuple[str, ...]:
    """What this run does not say about itself."""
    alone = "The interval is that of this launch's steps; how far launches differ was not measured (measure.launches=3 does)."
    whole = f"Where the step goes: {m.breakdown.exposed_by}." if m.breakdown and not m.breakdown.ranks else ""
    return tuple(text for text in (alone if m.spread and m.spread.n_launches == 1 else "", whole) if text)


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "n/a"
    launches, hosts = spread.between_launch_fraction, spread.between_host_fraction
    told = [f"{percent(spread.within_run_fraction, 2)} standard error within a launch"]
    told.append(f"{percent(launches, 2)} between {spread.n_launches} launches" if launches is not None else "one launch")
    told.append(f"{percent(hosts, 2)} between {spread.n_hosts} hosts" if hosts is not None else f"{spread.n_hosts} host")
    return ", ".join(told)


def _training(log: TrainingLog) -> str:
    begun = f"went on from step {log.read.step}, loaded in {seconds(log.read.time_s)}" if log.read else "began anew"
    if not log.writes:
        return f"{begun}; none saved"
    each = f"{gibibytes(log.writes[-1].size_bytes)} in {seconds(log.save_s or 0.0)} (median)"
    return f"{begun}; {len(log.writes)} saved up to step {log.writes[-1].step}, {each}, outside all timed steps"


def _finite(value: float | None) -> str:
    return "not finite" if value is None else significant(value, 4)


def _telemetry(telemetry: Telemetry | None) -> str:
    """Power, energy, clocks and temperature in one line; n/a where nothing tells."""
    if telemetry is None:
        return "n/a: nothing here tells of power, clocks or temperature"
    told = [
        scaled(telemetry.power_w, "W") if telemetry.power_w is not None else "power n/a",
        scaled(telemetry.energy_j_per_token, "J/token") if telemetry.energy_j_per_token is not None else "energy n/a",
        *(_device(d) for d in telemetry.devices[:1]),
    ]
    return ", ".join(told)


def _device(d: DeviceTelemetry) -> str:
    told = [
        f"{scaled(d.clock_hz, 'Hz')} mean clock" if d.clock_hz is not None else "clock n/a",
        f"{significant(d.peak_temperature_c)} C at most" if d.peak_temperature_c is not None else "temperature n/a",
        f"throttled {percent(d.throttled_fraction, 0)}" if d.throttled_fraction is not None else "throttling n/a",
    ]
    return f"{', '.join(told)} (rank {d.rank}, {d.source})"


def _number(m: Measurement) -> str:
    e = m.tokens_per_s
    return f"{significant(e.value, 4)} +-{100 * e.half_width_fraction:.1f} %, {e.confidence:.0%} interval"


def _local_plan(m: Measurement) -> str:
    b = m.batch
    return (
        f"{m.plan.data_parallel_size}-way data parallel, micro-batch {b.micro_batch_size}, global batch {b.global_batch_size}, "
        f"{m.precision}{', compiled' if m.compiled else ''}"
    )


def _step_times(m: Measurement) -> str:
    q = m.step_s
    return f"median {seconds(q.median)}, 10 % below {seconds(q.p10)}, 10 % above {seconds(q.p90)}, 1 % above {seconds(q.p99)}"


def _mfu(u: Utilization) -> str:
    if u.mfu_causal is None:
        return f"n/a ({u.peak_source})"
    return f"{percent(u.mfu_causal)} causal-halved, {percent(u.mfu_full)} full attention, of {scaled(u.peak_flops_per_s or 0, 'FLOP/s')}"


def _memory(ranks: Sequence[RankSamples]) -> str:
    reserved = gibibytes(max(r.peak_reserved_bytes for r in ranks))
    allocated = [r.peak_allocated_bytes for r in ranks if r.peak_allocated_bytes is not None]
    return f"{gibibytes(max(allocated))} allocated, {reserved} reserved" if allocated else f"{reserved} resident, at its peak"


def _before(m: Measurement) -> str:
    warmup = m.ranks[0].warmup_s
    return f"{seconds(m.setup_s)}, {seconds(m.compile_s)} above a later one, {len(warmup)} steps ({m.warmup_end})"


def projected_table(projections: Sequence[Prediction], not_projected: Sequence[str]) -> Table:
    """What that says about clusters that are not here."""
    target = projections[0].target if projections else "nothing"
    tokens = count(projections[0].n_tokens) if projections else "all"
    days, price = f"days for\n{tokens}\ntokens", "rented:\nmillion USD"
    header = ("cluster", "plan", "step, s", "million\ntokens/s", "MFU", days, price, "where the time goes")
    rows = tuple(
        (
            f"{p.cluster}\n{p.n_devices_used:,} of {p.n_devices:,} devices",
            cluster_plan(p),
            span(p.step_s),
            span(p.tokens_per_s, 1e6),
            percent_span(p.mfu_causal),
            span(p.days),
            span(p.rental_usd, 1e6) if p.rental_usd else "n/a",
            where_time_goes(p.parts),
        )
        for p in projections
    )
    notes = (
        *not_projected,
        "Median and 10-90 % interval of a model, not a measurement; no failure is counted. MFU is of the peak in that precision, "
        "with causal attention halved.",
        *_by_sentence("told", [(p.cluster, p.told) for p in projections]),
        *_by_sentence("not told", [(p.cluster, p.not_told) for p in projections]),
    )
    return Table(f"Projected: {target} on {len(projections)} clusters", header, rows, notes)


def _by_sentence(label: str, told: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Each sentence once, with the clusters that it is about where it is not about all."""
    about = {text: [cluster for cluster, texts in told if text in texts] for _, texts in told for text in texts}
    return [f"{label}: {text}" + (f" ({', '.join(names)})" if len(names) < len(told) else "") for text, names in about.items()]


def cluster_plan(p: Prediction) -> str:
    """The plan in the field's shorthand over the batch in sequences."""
    return f"{plan_words(p.plan)}\nbatch {p.batch.global_batch_size:,} by {p.batch.micro_batch_size}, {p.precision}"


def plan_words(plan: ParallelPlan) -> str:
    """The plan in the field's shorthand, tp8 pp16x2 ep8 dp187."""
    sizes = (
        ("tp", plan.tensor_parallel_size, ""),
        ("pp", plan.pipeline_parallel_size, f"x{plan.n_virtual_stages}" if plan.n_virtual_stages > 1 else ""),
        ("cp", plan.context_parallel_size, ""),
        ("ep", plan.expert_parallel_size, ""),
    )
    words = [f"{name}{size}{more}" for name, size, more in sizes if size > 1] + [f"dp{plan.data_parallel_size}"]
    words += [plan.sharding.value] + ([f"recompute {plan.recompute}"] if plan.recompute != "none" else [])
    return " ".join(words)


def where_time_goes(parts: Sequence[StepPart]) -> str:
    """The parts of at least 4 % of the step, largest first."""
    whole = sum(part.time_s for part in parts)
    shares = sorted(((part.time_s / whole, part.part.value.replace("_", " ")) for part in parts), reverse=True)
    return ", ".join(f"{name} {share:.0%}" for share, name in shares if share >= 0.04)


def causes(p: Prediction) -> str:
    """The causes of at least a tenth of a prediction's variance, largest first."""
    return ", ".join(f"{cause.cause} {cause.share:.0%}" for cause in p.uncertainty if cause.share >= 0.1)


def parts_table(p: Prediction) -> Table:
    """The median step of one projection, part by part, with what each rests on."""
    whole = p.step_s.p50
    rows = tuple(
        (part.part.value.replace("_", " "), seconds(part.time_s), percent(part.time_s / whole), part.provenance.value, part.basis)
        for part in p.parts
    )
    memory = p.memory
    notes = (
        f"Unsure because of: {causes(p)}.",
        f"Memory of the fullest device: {gibibytes(memory.state_bytes)} state + {gibibytes(memory.activation_bytes)} activations + "
        f"{gibibytes(memory.overhead_bytes)} overhead of {gibibytes(memory.capacity_bytes)}; it fits with a chance of "
        f"{percent(memory.fits_probability, 0)}.",
        f"Rental: {p.rental_basis}.",
    )
    return Table(f"{p.target} on {p.cluster}: the step of {seconds(whole)}", ("part", "time", "share", "known by", "rests on"), rows, notes)
