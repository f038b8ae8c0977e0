"""Predictions held against published runs: tables of rows in, speeds with intervals out, and the score beside naive rules."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np

from bench.config.compose import conf_dir, devices, load_prior
from bench.cost.completion import completions, table_of
from bench.cost.fit import Sample, fit
from bench.cost.layout import Array
from bench.cost.observation import Observation
from bench.cost.posterior import Evidence, condition
from bench.cost.row_memory import RowMemory, row_memory
from bench.cost.table import Table
from bench.cost.uncertainty import NORMAL_P90, predicted, width_factors
from bench.errors import UsageError
from bench.facts.figure import Figure, Provenance
from bench.facts.hardware import Device
from bench.facts.prediction import Prior, Widths
from bench.facts.published import Observed, Protocol, PublishedSetup, RowPrediction
from bench.store.published import later_rows, observed_of, setup_of, shipped_failures, shipped_rows

ROWS_PER_STACK = 150  # of which the fit takes at most so many, evenly spread: a sweep is not a thousand stacks
SWEEP_DEVICES = 64


class Row(NamedTuple):
    """One published run."""

    setup: PublishedSetup
    observed: Observed
    cells: Mapping[str, str]


@cache
def device_names() -> dict[str, Device]:
    """Every device that conf/ knows, by what tables of published runs call it."""
    return {alias: device for device in devices() for alias in device.aliases}


@cache
def physical_prior() -> Prior:
    """The coefficients before any training run is looked at."""
    return load_prior(conf_dir() / "prior" / "physical.yaml")


@cache
def published_rows() -> tuple[Row, ...]:
    """Every shipped run with a speed and a device count."""
    return _with_speed(shipped_rows())


@cache
def unseen_rows() -> tuple[Row, ...]:
    """Runs that no fit has seen."""
    return _with_speed(later_rows())


def _with_speed(table: Iterable[Mapping[str, str]]) -> tuple[Row, ...]:
    rows = ((setup_of(cells), observed_of(cells), cells) for cells in table)
    return tuple(Row(setup, observed, cells) for setup, observed, cells in rows if observed and setup.n_devices)


@cache
def sweep_memory() -> tuple[tuple[tuple[float, RowMemory], ...], tuple[RowMemory, ...]]:
    """(bytes that the first stage reserved, the estimate) of every run of the sweep that tells them; the estimates of its failures."""
    runs = [row for row in published_rows() if row.setup.kind == "sweep" and row.observed.reserved_bytes]
    ran = tuple((row.observed.reserved_bytes or 0.0, row_memory(row.setup, device_names())) for row in runs)
    return ran, tuple(row_memory(setup_of(cells), device_names()) for cells in shipped_failures())


def predict_rows(targets: Sequence[Mapping[str, str]], measured: Sequence[Mapping[str, str]], prior: Prior) -> list[RowPrediction]:
    """A prediction of every row, from the measured rows of its own group and the prior; an error where a row has none."""
    by_group: dict[str, list[tuple[PublishedSetup, Observed]]] = defaultdict(list)
    for cells in measured:
        try:
            setup, observed = setup_of(cells), observed_of(cells)
            completions(setup, device_names())
        except UsageError:
            continue  # a row that cannot be expressed tells nothing; its own line says so where it is to be predicted
        if observed:
            by_group[setup.group].append((setup, observed))
    found: dict[int, RowPrediction] = {}
    waiting: dict[str, list[tuple[int, PublishedSetup]]] = defaultdict(list)
    for i, cells in enumerate(targets):
        try:
            setup = setup_of(cells)
            completions(setup, device_names())
            waiting[setup.group].append((i, setup))
        except UsageError as error:
            found[i] = RowPrediction(id=cells.get("id", ""), error=str(error))
    for group, rows in waiting.items():
        predicted = _predict_group([setup for _, setup in rows], by_group[group], prior)
        found |= {i: prediction for (i, _), prediction in zip(rows, predicted, strict=True)}
    return [found[i] for i in range(len(targets))]


def _predict_group(setups: list[PublishedSetup], measured: list[tuple[PublishedSetup, Observed]], prior: Prior) -> list[RowPrediction]:
    table = table_of([setup for setup, _ in measured] + setups, device_names(), physical_prior())
    n = len(measured)
    evidence = Evidence(table=table.take(np.arange(n)), log_s=np.array([_log_s(observed) for _, observed in measured])) if n else None
    mean, sd = predicted(condition(prior, evidence), table.take(np.arange(n, n + len(setups))))
    steps, places = _step_tokens(table, n), table.heaviest[n:]
    held = [row_memory(setup, device_names(), int(place)) for setup, place in zip(setups, places, strict=True)]
    return [_row_prediction(setup, m, s, tokens, bytes_) for setup, m, s, tokens, bytes_ in zip(setups, mean, sd, steps, held, strict=True)]


def _step_tokens(table: Table, n: int) -> Array:
    """Tokens per device and step of the rows after the first `n`."""
    return table.mean(np.broadcast_to(table.work.step_tokens / table.work.n_devices, table.owner.shape))[n:]


def _row_prediction(setup: PublishedSetup, mean: float, sd: float, tokens: float, held: RowMemory) -> RowPrediction:
    speed = float(np.exp(-mean))
    return RowPrediction(
        id=setup.id,
        tokens_per_s_per_device=speed,
        tokens_per_s_per_device_p10=float(np.exp(-mean - NORMAL_P90 * sd)),
        tokens_per_s_per_device_p90=float(np.exp(-mean + NORMAL_P90 * sd)),
        step_s=float(tokens / speed),
        reserved_bytes=held.reserved_bytes,
        fits=held.fullest.fits,
        fits_probability=held.fullest.fits_probability,
    )


def _log_s(observed: Observed) -> float:
    return -float(np.log(observed.tokens_per_s_per_device))


class Task(NamedTuple):
    """What is measured and what is to be predicted from it."""

    measured: list[Row]
    targets: list[Row]


def tasks(rows: Iterable[Row], protocol: Protocol) -> list[Task]:
    """The tasks of a protocol."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if (row.setup.kind == "sweep") == (protocol is Protocol.SWEEP):
            groups[row.setup.series if protocol is Protocol.SCALE else row.setup.stack].append(row)
    found = (_SPLITS[protocol](members) for _, members in sorted(groups.items()))
    return [task for task in found if task.targets and (task.measured or protocol is Protocol.COLD)]


def _devices(row: Row) -> float:
    return row.setup.n_devices or 0.0


def _split_scale(members: list[Row]) -> Task:
    least = min(_devices(row) for row in members)
    return Task([row for row in members if _devices(row) == least], [row for row in members if _devices(row) > least])


def _split_proxy(members: list[Row]) -> Task:
    known = [row for row in members if flops_per_token(row.setup)]
    if not known:
        return Task([], [])
    least = min(_devices(row) for row in known)
    smallest = [row for row in known if _devices(row) == least]
    cheapest = min(smallest, key=lambda row: flops_per_token(row.setup) or 0.0).setup.series
    measured = [row for row in smallest if row.setup.series == cheapest]
    ids = {row.setup.id for row in measured}
    return Task(measured, [row for row in known if row.setup.id not in ids])


def _split_cold(members: list[Row]) -> Task:
    return Task([], members)


def _split_sweep(members: list[Row]) -> Task:
    return Task([row for row in members if _devices(row) <= SWEEP_DEVICES], [row for row in members if _devices(row) > SWEEP_DEVICES])


_SPLITS: dict[Protocol, Callable[[list[Row]], Task]] = {
    Protocol.SCALE: _split_scale,
    Protocol.PROXY: _split_proxy,
    Protocol.COLD: _split_cold,
    Protocol.SWEEP: _split_sweep,
}


def flops_per_token(setup: PublishedSetup) -> float | None:
    """Model FLOPs of a token, causal attention halved, active experts; None where the shape is not told: for naive rules."""
    d, layers, heads, vocab, seq = setup.d_model, setup.n_layers, setup.n_heads, setup.vocab_size, setup.seq_len
    ff = (setup.moe_d_ff or 0) * (setup.experts_top_k or 1) if setup.is_moe and setup.moe_d_ff else setup.d_ff
    if d is None or layers is None or heads is None or vocab is None or seq is None or ff is None:
        return None
    kv = setup.n_kv_heads or heads
    per_layer = 2 * d * d + 2 * d * d * kv / heads + (3 if setup.gated else 2) * d * ff
    return 6 * (layers * per_layer + vocab * d) + 6 * layers * d * seq


@dataclass(frozen=True, kw_only=True)
class Held:
    """One prediction beside what was published."""

    row: Row
    log_error: float  # of the speed: predicted over observed
    sd: float  # of it, before widening
    width: float  # the factor that the prior widens it with
    factor: float  # devices over those of the smallest measured row; 0 where none was
    rule: float | None  # relative error of the naive rule

    @property
    def error(self) -> float:
        """Relative error of the speed."""
        return float(abs(np.exp(self.log_error) - 1))


def hold(rows: Sequence[Row], protocol: Protocol, prior_without: Callable[[str], Prior]) -> list[Held]:
    """Every target of a protocol predicted by a prior that has not seen its source."""
    held = []
    cold_mfu = _cold_mfu(rows)
    for task in tasks(rows, protocol):
        prior = prior_without(task.targets[0].setup.source)
        setups = [row.setup for row in (*task.measured, *task.targets)]
        table, n = table_of(setups, device_names(), physical_prior()), len(task.measured)
        evidence = Evidence(table=table.take(np.arange(n)), log_s=np.array([_log_s(row.observed) for row in task.measured])) if n else None
        posterior = condition(prior, evidence)
        targets = table.take(np.arange(n, len(setups)))
        mean, variance = posterior.predict(targets)
        widths = width_factors(posterior, targets)
        least = min((_devices(row) for row in task.measured), default=0.0)
        for row, m, v, w in zip(task.targets, mean, variance, widths, strict=True):
            rule = naive_speed(protocol, task.measured, row, cold_mfu)
            held.append(
                Held(
                    row=row,
                    log_error=_log_s(row.observed) - float(m),
                    sd=float(np.sqrt(v + posterior.row_log_sd**2)),
                    width=float(w),
                    factor=_devices(row) / least if least else 0.0,
                    rule=None if rule is None else abs(rule / row.observed.tokens_per_s_per_device - 1),
                )
            )
    return held


class Seen(NamedTuple):
    """A published run on a device whose parts were timed: predicted from them, and without."""

    row: Row
    log_s: float  # device-seconds per token from the parts
    sd: float
    cold_log_s: float
    rule: float | None  # relative error of the naive rule


def hold_composed(
    rows: Sequence[Row], prior_without: Callable[[str], Prior], told: Callable[[Prior, Device], tuple[Observation, ...]]
) -> list[Seen]:
    """Every run, plans of sweeps apart, on a device of which `told` has observations, by a prior that has not seen its source."""
    found, cold_mfu = [], _cold_mfu(rows)
    by_site: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.setup.kind != "sweep" and row.setup.gpu in device_names():
            by_site[row.setup.source, row.setup.gpu].append(row)
    for (source, gpu), members in sorted(by_site.items()):
        if not told(physical_prior(), device_names()[gpu]):
            continue
        prior = prior_without(source)
        table = table_of([row.setup for row in members], device_names(), physical_prior())
        mean, sd = predicted(condition(prior, None, told(prior, device_names()[gpu])), table)
        cold, _ = predicted(condition(prior, None), table)
        for row, m, s, c in zip(members, mean, sd, cold, strict=True):
            rule = naive_speed(Protocol.COLD, (), row, cold_mfu)
            error = None if rule is None else abs(rule / row.observed.tokens_per_s_per_device - 1)
            found.append(Seen(row, float(m), float(s), float(c), error))
    return found


def naive_speed(protocol: Protocol, measured: Sequence[Row], row: Row, cold_mfu: Callable[[Row], float]) -> float | None:
    """Tokens per second of one device by the rule of thumb: same speed, same FLOP/s, or the usual MFU of the device."""
    if protocol is Protocol.SCALE:
        return max(other.observed.tokens_per_s_per_device for other in measured)
    flops, device = flops_per_token(row.setup), device_names().get(row.setup.gpu)
    if flops is None or device is None:
        return None
    if protocol is Protocol.COLD:
        return _peak(device) * cold_mfu(row) / flops
    rates = [other.observed.tokens_per_s_per_device * (flops_per_token(other.setup) or 0.0) for other in measured]
    rates = [rate for rate in rates if rate]
    return (max(rates) if protocol is Protocol.PROXY else statistics.median(rates)) / flops if rates else None


def _peak(device: Device) -> float:
    """Dense peak of the device in bf16, or fp16 where it has no bf16."""
    return next(figure.value for name in ("bf16", "fp16") for precision, figure in device.peak_flops_per_s.items() if precision == name)


def _cold_mfu(rows: Sequence[Row]) -> Callable[[Row], float]:
    """The median utilization of other stacks on a device in a precision; 0.4 where there is none."""
    known: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for row in rows:
        flops, device = flops_per_token(row.setup), device_names().get(row.setup.gpu)
        if flops and device and row.setup.kind != "sweep":
            use = row.observed.tokens_per_s_per_device * flops / _peak(device)
            known[row.setup.gpu, row.setup.precision].append((row.setup.stack, use))

    def usual(row: Row) -> float:
        others = [use for stack, use in known[row.setup.gpu, row.setup.precision] if stack != row.setup.stack]
        return statistics.median(others) if others else 0.4

    return usual


def _fitted_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that a fit takes: of every stack at most ROWS_PER_STACK, evenly spread; rows of a stack next to one another."""
    by_stack: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_stack[row.setup.stack].append(row)
    return [row for members in by_stack.values() for row in members[:: max(1, len(members) // ROWS_PER_STACK)]]


def _sample_of(chosen: Sequence[Row]) -> Sample:
    stacks = {stack: i for i, stack in enumerate(dict.fromkeys(row.setup.stack for row in chosen))}
    table = table_of([row.setup for row in chosen], device_names(), physical_prior())
    evidence = Evidence(table=table, log_s=np.array([_log_s(row.observed) for row in chosen]))
    return Sample(evidence=evidence, stack=np.array([stacks[row.setup.stack] for row in chosen]))


def fits_without(rows: Sequence[Row]) -> Callable[[str | None], Prior]:
    """For a source the prior fitted to all others, for None that fitted to all; each is fitted once. A stack is of one source."""
    chosen = _fitted_rows(rows)
    sample = _sample_of(chosen)

    @cache
    def fitted(source: str | None) -> Prior:
        return fit(physical_prior(), sample.take(np.flatnonzero([row.setup.source != source for row in chosen])))

    return fitted


CLASSES: dict[str, Callable[[PublishedSetup], bool]] = {
    "experts": lambda setup: setup.is_moe,
    "blackwell": lambda setup: setup.gpu in ("b200", "gb200", "b300", "gb300"),
    "cdna": lambda setup: setup.gpu.startswith("mi"),
}
REGIMES: dict[Protocol, tuple[str, str]] = {
    Protocol.COLD: ("cold", "cold rows"),
    Protocol.SCALE: ("model", "rows of a model measured on fewer devices"),
    Protocol.PROXY: ("stack", "rows of a stack of which another model was measured"),
    Protocol.SWEEP: ("plans", "rows of a sweep of plans measured on fewer devices"),
}


def with_widths(prior: Prior, held: Mapping[Protocol, Sequence[Held]]) -> Prior:
    """The prior with factors on its widths, such that 80 % intervals of rows held out contain 80 % of them.

    A regime's factor is that of the rows of no special class; a class's is what its cold and proxy rows need beyond it.
    """
    figures: dict[str, Figure] = {}
    for protocol, (name, what) in REGIMES.items():
        usual = [one for one in held[protocol] if not any(test(one.row.setup) for test in CLASSES.values())]
        figures[name] = _width([abs(one.log_error) / one.sd for one in usual], what)
    for name, test in CLASSES.items():
        ratios = [
            abs(one.log_error) / one.sd / figures[REGIMES[protocol][0]].value
            for protocol in (Protocol.COLD, Protocol.PROXY)
            for one in held[protocol]
            if test(one.row.setup)
        ]
        wider = _width(ratios, f"cold and proxy rows of the class {name}, over those of no class")
        figures[name] = replace(wider, value=max(1.0, wider.value))
    return replace(prior, widths=Widths(**figures))


def _width(ratios: Sequence[float], what: str) -> Figure:
    value = float(np.quantile(ratios, 0.8)) / NORMAL_P90
    source = f"{len(ratios)} {what}, their sources left out of the fit"
    return Figure(value=float(f"{value:.6g}"), provenance=Provenance.FITTED, source=source)
