"""How wrong the predictor is: every protocol of the back-test with the predicted source left out of the fit, beside naive rules."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bench.backtest import (
    CLASSES,
    REGIMES,
    Held,
    Row,
    Seen,
    fits_without,
    hold,
    hold_composed,
    published_rows,
    sweep_memory,
    unseen_rows,
    with_widths,
)
from bench.config.compose import devices
from bench.cost.observation import Observed
from bench.cost.sliced import is_slice_of
from bench.cost.uncertainty import NORMAL_P90
from bench.errors import UsageError
from bench.facts.accuracy import Accuracy, Composed, ComposedRow, MemoryAccuracy, ProtocolAccuracy, Score, UnseenAccuracy, WorstRow
from bench.facts.hardware import Device
from bench.facts.prediction import MemoryEstimate, Prior, Widths
from bench.facts.profile import SliceSpec
from bench.facts.published import Protocol
from bench.facts.units import GIB

Each = Callable[[Sequence[str]], Iterable[str]]
N_WORST = 12
FAR = 16.0  # devices over those of the smallest measured row
COMPETING = 5  # plans of one model on one cluster, at least, among which one is chosen
NEAR_LIMIT = (50 * GIB, 110 * GIB)  # needs around the memory of the sweep's devices
UNSEEN_PRECISIONS = ("bf16", "fp8", "mxfp8", "nvfp4")
SICK_PROBE = 120.0  # GB/s of an all-reduce: below, the network is taken to be in another state


def fitted_prior(rows: Sequence[Row], each: Each = iter) -> tuple[Prior, dict[Protocol, list[Held]]]:
    """The prior fitted to all rows, its widths by rows held out, and those rows. `each`: what the sources are taken through, one by one."""
    without = fits_without(rows)
    for source in each(sorted({row.setup.source for row in rows})):
        without(source)
    held = {protocol: hold(rows, protocol, without) for protocol in Protocol}
    prior = with_widths(without(None), held)
    return prior, {protocol: widened(members, protocol, prior.widths) for protocol, members in held.items()}


def accuracy(each: Each = iter) -> Accuracy:
    """The whole score on the shipped rows."""
    prior, held = fitted_prior(published_rows(), each)
    return score_of(held, prior)


def composed(told: Callable[[Prior, Device], Observed], prior: Prior, each: Each = iter, slices: Sequence[SliceSpec] = ()) -> Composed:
    """Published runs on the devices that `told` knows of, predicted from it; `prior` has seen all sources and is only told of.

    `slices` are those that are in what is told. Raises UsageError where there are no such runs.
    """
    rows, known = published_rows(), [device for device in devices() if told(prior, device).observations]
    names = {alias for device in known for alias in device.aliases}
    without = fits_without(rows)
    for source in each(sorted({row.setup.source for row in rows if row.setup.gpu in names})):
        without(source)
    seen = hold_composed(
        rows, lambda source: replace(without(source), widths=prior.widths), lambda prior, device: told(prior, device).observations
    )
    if not seen:
        silent = {sentence: None for device in devices() for sentence in told(prior, device).not_told}
        why = next(iter(silent), "give profile=RUN or slices=[RUN]")
        raise UsageError(f"protocol: slices given; no published run is on a device whose parts were timed: {why}")
    own = [one for one in seen if any(is_slice_of(spec, one.row.setup) for spec in slices)]
    return Composed(
        told=tuple(sentence for device in known for sentence in told(prior, device).told),
        rows=tuple(_composed(one, one in own) for one in seen),
        composed=_score([_error(one.row, one.log_s) for one in seen]),
        cold=_score([_error(one.row, one.cold_log_s) for one in seen]),
        sliced=_score([_error(one.row, one.log_s) for one in own]) if own else None,
        sliced_cold=_score([_error(one.row, one.cold_log_s) for one in own]) if own else None,
        naive=_score(rules) if (rules := [one.rule for one in seen if one.rule is not None]) else None,
        coverage_of_80=float(np.mean([abs(_log_speed(one.row) + one.log_s) <= NORMAL_P90 * one.sd for one in seen])),
    )


def _error(row: Row, log_s: float) -> float:
    """Relative error of the speed."""
    return float(abs(np.exp(-log_s) / row.observed.tokens_per_s_per_device - 1))


def _log_speed(row: Row) -> float:
    return float(np.log(row.observed.tokens_per_s_per_device))


def _composed(one: Seen, is_sliced: bool) -> ComposedRow:
    return ComposedRow(
        id=one.row.setup.id,
        source=one.row.setup.source,
        what=_what(one.row),
        published=one.row.observed.tokens_per_s_per_device,
        composed=float(np.exp(-one.log_s)),
        composed_p10=float(np.exp(-one.log_s - NORMAL_P90 * one.sd)),
        composed_p90=float(np.exp(-one.log_s + NORMAL_P90 * one.sd)),
        cold=float(np.exp(-one.cold_log_s)),
        is_sliced=is_sliced,
    )


def score_of(held: Mapping[Protocol, Sequence[Held]], prior: Prior) -> Accuracy:
    """The score of rows held out, and of those that the prior has not seen."""
    protocols = tuple(_protocol(protocol, held[protocol]) for protocol in Protocol)
    worst = sorted((one for protocol in Protocol for one in held[protocol] if one.rule is not None), key=lambda one: -one.error)
    seen: dict[str, Held] = {}
    for one in worst:
        seen.setdefault(one.row.setup.id, one)
    return Accuracy(
        n_rows=len(published_rows()),
        n_stacks=len({row.setup.stack for row in published_rows()}),
        n_sources=len({row.setup.source for row in published_rows()}),
        protocols=protocols,
        worst=tuple(_worst(one) for one in list(seen.values())[:N_WORST]),
        memory=memory_accuracy(),
        unseen=unseen_accuracy(prior),
    )


def unseen_accuracy(prior: Prior) -> tuple[UnseenAccuracy, ...]:
    """The score of a prior on runs that came after it, by number format, all of them first."""
    cold, told = (hold(unseen_rows(), protocol, lambda _: prior) for protocol in (Protocol.COLD, Protocol.PROXY))
    return tuple(
        UnseenAccuracy(
            precision=name,
            n_rows=len(alone),
            cold=_score([one.error for one in alone]),
            cold_bias=float(np.expm1(np.median([one.log_error for one in alone]))),
            cold_coverage_of_80=_coverage(alone),
            told=_score([one.error for one in after]) if after else None,
            told_coverage_of_80=_coverage(after) if after else None,
        )
        for name in ("all", *UNSEEN_PRECISIONS)
        for alone, after in [[[one for one in held if name in ("all", one.row.setup.precision)] for held in (cold, told)]]
    )


def memory_accuracy() -> MemoryAccuracy:
    """The score of the memory model on the sweep of plans."""
    ran, died = sweep_memory()
    fits, fails = [one.fullest for _, one in ran], [one.fullest for one in died]
    near = [[one for one in group if NEAR_LIMIT[0] <= one.total_bytes <= NEAR_LIMIT[1]] for group in (fits, fails)]
    return MemoryAccuracy(
        n_runs=len(ran),
        n_failures=len(died),
        balanced=_balanced(fits, fails),
        n_near_limit=sum(map(len, near)),
        balanced_near_limit=_balanced(*near),
        reserved=_score([abs(one.reserved_bytes / observed - 1) for observed, one in ran]),
    )


def _balanced(ran: Sequence[MemoryEstimate], died: Sequence[MemoryEstimate]) -> float:
    return float(np.mean([one.fits for one in ran]) + np.mean([not one.fits for one in died])) / 2


def _worst(one: Held) -> WorstRow:
    return WorstRow(
        id=one.row.setup.id,
        source=one.row.setup.source,
        what=_what(one.row),
        predicted_over_observed=float(np.exp(one.log_error)),
        sds=abs(one.log_error) / one.sd,
    )


def _what(row: Row) -> str:
    """A run in a few words."""
    setup = row.setup
    plan = f"tp{setup.tp or 0:g} pp{setup.pp or 0:g} cp{setup.cp or 0:g} ep{setup.ep or 0:g}"
    return f"{row.cells.get('model_name', '')} on {setup.n_devices:g} {setup.gpu}, {setup.precision}, {plan}"


def _protocol(protocol: Protocol, held: Sequence[Held]) -> ProtocolAccuracy:
    scored = [one for one in held if one.rule is not None]
    far = [one for one in scored if one.factor > FAR] if protocol is Protocol.SCALE else []
    groups = {name: [one for one in scored if test(one)] for name, test in KINDS.items()}
    return ProtocolAccuracy(
        protocol=protocol,
        predicted=_score([one.error for one in scored]),
        naive=_score([one.rule or 0.0 for one in scored]),
        by_stack=_score(_by_stack(scored)),
        beyond_16x=_score([one.error for one in far]) if far else None,
        beyond_16x_naive=_score([one.rule or 0.0 for one in far]) if far else None,
        coverage_of_80=_coverage(scored),
        coverage_by_class={name: _coverage(members) for name, members in groups.items() if len(members) >= 10},
        plan_regret=_regret(scored) if protocol is Protocol.SWEEP else None,
    )


def widened(held: Sequence[Held], protocol: Protocol, widths: Widths) -> list[Held]:
    """The same rows with the factors that these widths give them; their predictions know nothing of it."""
    regime = getattr(widths, REGIMES[protocol][0]).value
    by_class = {name: getattr(widths, name).value for name in CLASSES}
    return [
        replace(one, width=regime * max((by_class[name] for name, test in CLASSES.items() if test(one.row.setup)), default=1.0))
        for one in held
    ]


KINDS: dict[str, Callable[[Held], bool]] = {
    "dense": lambda one: not one.row.setup.is_moe,
    "mixture of experts": lambda one: one.row.setup.is_moe,
    "fp8": lambda one: "fp8" in one.row.setup.precision,
    "A100": lambda one: one.row.setup.gpu.startswith("a100"),
    "H100": lambda one: one.row.setup.gpu.startswith(("h100", "h200")),
    "Blackwell": lambda one: one.row.setup.gpu in ("b200", "gb200", "b300", "gb300"),
    "AMD": lambda one: one.row.setup.gpu.startswith("mi"),
}


def _score(errors: Sequence[float]) -> Score:
    return Score(n=len(errors), median=float(np.quantile(errors, 0.5)), p90=float(np.quantile(errors, 0.9)))


def _by_stack(held: Sequence[Held]) -> list[float]:
    stacks: Mapping[str, list[float]] = defaultdict(list)
    for one in held:
        stacks[one.row.setup.stack].append(one.error)
    return [float(np.median(errors)) for errors in stacks.values()]


def _coverage(held: Sequence[Held]) -> float:
    return float(np.mean([abs(one.log_error) <= NORMAL_P90 * one.sd * one.width for one in held]))


def _regret(held: Sequence[Held]) -> Score | None:
    """How much slower the plan predicted fastest is than the fastest measured, where five or more compete."""
    groups: Mapping[tuple[object, ...], list[Held]] = defaultdict(list)
    for one in held:
        cells, setup = one.row.cells, one.row.setup
        sick = float(cells.get("probe_all_reduce_gb_per_s") or 1e9) < SICK_PROBE
        groups[setup.series, setup.n_devices, setup.global_batch, sick].append(one)
    regrets = []
    for members in groups.values():
        if len(members) >= COMPETING:
            speeds = [one.row.observed.tokens_per_s_per_device for one in members]
            guesses = [speed * np.exp(one.log_error) for speed, one in zip(speeds, members, strict=True)]
            regrets.append(max(speeds) / speeds[int(np.argmax(guesses))] - 1)
    return _score(regrets) if regrets else None
