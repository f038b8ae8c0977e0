"""The verb that holds an extrapolation against a measurement: one and two hosts measured, more of them predicted, then measured too."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import stats
from bench.config.compose import compose_plain, groups, load
from bench.cost.foresight import forecast, promised_log_sd
from bench.cost.naive import doubling_s, linear_s
from bench.errors import UsageError
from bench.facts.breakdown import Phase
from bench.facts.lab import Lab, LabHonesty, LabNetwork, LabNetworkResult, LabPoint, LabResult, LabRow
from bench.facts.measurement import Measurement
from bench.facts.profile import NetworkProbe
from bench.report.lab_page import lab_page
from bench.report.lab_tables import lab_report
from bench.report.terminal import announce
from bench.run.agents import run_on_hosts
from bench.run.devices import n_cores
from bench.run.hosts import why_no_hosts
from bench.store.labs import LAB, is_measured, read_measured, read_network, write_lab
from bench.store.profiles import METER
from bench.store.results import make_run_dir, refuse_to_overwrite, write_config

LAB_VERSION = 1
PROBE_BYTES = (2**12, 2**16, 2**20)
COMMON = (
    "device=cpu",
    "device.threads_per_rank=1",
    "train.precision=fp32",
    "measure.warmup_min_steps=2",
    "measure.warmup_max_steps=2",
    f"probe.collective_min_bytes={PROBE_BYTES[0]}",
    f"probe.collective_max_bytes={PROBE_BYTES[-1]}",
    "probe.collective_size_factor=16",
    "probe.repeat.min_samples=3",
    "cluster=gb200_nvl72_rack",  # one that composes quickly: nothing is projected
)
REAL, METERED = "real", "metered"


def lab(*overrides: str) -> tuple[LabResult, Path]:
    """The experiment, and the directory that keeps it; in one that an earlier attempt was stopped in, rounds that are done stay.

    A word without `=` is an option of the group `lab`. Raises UsageError where this machine cannot have hosts, before anything runs.
    """
    plain = compose_plain([text if "=" in text else f"lab={text}" for text in overrides])
    config = load(plain)
    if config.lab is None:
        raise UsageError(f"lab: no experiment given; bench lab scaling, or another of {', '.join(groups()['lab'])}")
    if why := why_no_hosts():
        raise UsageError(f"lab: {why}")
    run_dir = make_run_dir(config.out, "lab")
    refuse_to_overwrite(run_dir, LAB)
    write_config(run_dir, plain)
    experiment = Experiment(config.lab, run_dir)
    alone = experiment.alone()
    result = LabResult(
        lab_version=LAB_VERSION,
        date=datetime.now(UTC).date().isoformat(),
        machine=experiment.machine(),
        alone=tuple(alone.values()),
        networks={name: experiment.network(name, alone) for name in config.lab.networks},
        honesty=experiment.honesty(),
    )
    write_lab(run_dir, result, lab_report(result), lab_page(result))
    return result, run_dir


@dataclass(frozen=True)
class Experiment:
    """Rounds below a run directory."""

    lab: Lab
    run_dir: Path

    def alone(self) -> dict[str, LabPoint]:
        """Every case on one host, metered; the meters are made from real steps there."""
        found = {}
        for n_ranks, cases in self._by_ranks(self._used()).items():
            points = {}
            for case in cases:
                points[f"{case}-{REAL}"] = self._plain(case, 1, "measure.record_meter=true")
                points[f"{case}-z{METERED}"] = self._plain(case, 1, "measure.breakdown_steps=4", self._meter(case))
            folder = self._round(None, 1, n_ranks, points)
            for case in cases:
                found[case] = point_of(case, 1, n_ranks, read_measured(folder / f"{case}-z{METERED}").measurement)
        return found

    def honesty(self) -> tuple[LabHonesty, ...]:
        """Real and metered steps side by side, on one host and on the first network's two: as far as this machine's cores reach."""
        name, network = next(iter(self.lab.networks.items()))
        pairs = [(None, 1, case, f"{case}-z{METERED}") for case in self._used()] + [
            (name, 2, case, case) for case in network.cases if case in self.lab.computed
        ]
        found = []
        for on, n, case, point in pairs:
            if self._has_cores(n, case):
                real_s, metered_s = (self._median_s(on, n, case, kind) for kind in (f"{case}-{REAL}", point))
                found.append(LabHonesty(case=case, n_hosts=n, real_s=real_s, metered_s=metered_s))
        return tuple(found)

    def _median_s(self, name: str | None, n_hosts: int, case: str, point: str) -> float:
        return read_measured(self._folder(name, n_hosts, self._ranks(case)) / point).measurement.step_s.median

    def _has_cores(self, n_hosts: int, case: str) -> bool:
        return n_hosts * self._ranks(case) <= n_cores()

    def _used(self) -> list[str]:
        return list(dict.fromkeys(case for network in self.lab.networks.values() for case in network.cases))

    def machine(self) -> str:
        """The processor and its cores, as the first point tells."""
        first = self._used()[0]
        environment = read_measured(self._folder(None, 1, self._ranks(first)) / f"{first}-{REAL}").environment
        return f"{environment.cpu}, {environment.n_cores} cores"

    def network(self, name: str, alone: dict[str, LabPoint]) -> LabNetworkResult:
        """Two hosts measured, more of them predicted, then measured."""
        cases = self.lab.networks[name].cases
        probes, points = self._measure(name, 2, list(cases))
        second = {point.case: point for point in points}
        rows: list[LabRow] = []
        for n_hosts in sorted({n for sizes in cases.values() for n in sizes}):
            told, measured = self._measure(name, n_hosts, [case for case, sizes in cases.items() if n_hosts in sizes])
            probes, points = probes + told, points + measured
            rows += [row_of(name, self.lab.networks[name], point, alone[point.case], second[point.case], probes) for point in measured]
        return LabNetworkResult(network=self.lab.networks[name], probes=tuple(probes), points=tuple(points), rows=tuple(rows))

    def _measure(self, name: str, n_hosts: int, cases: Sequence[str]) -> tuple[list[NetworkProbe], list[LabPoint]]:
        probes, points = [], []
        for n_ranks, some in self._by_ranks(cases).items():
            wanted = {case: self._plain(case, n_hosts, self._meter(case)) for case in some}
            if n_hosts == 2 and name == next(iter(self.lab.networks)):
                wanted |= {
                    f"{case}-{REAL}": self._plain(case, n_hosts)
                    for case in some
                    if case in self.lab.computed and self._has_cores(n_hosts, case)
                }
            folder = self._round(name, n_hosts, n_ranks, wanted)
            probes += [without_samples(probe)] if (probe := read_network(folder)) else []
            points += [point_of(case, n_hosts, n_ranks, read_measured(folder / case).measurement) for case in some]
        return probes, points

    def _round(self, name: str | None, n_hosts: int, n_ranks: int, points: dict[str, dict[str, Any]]) -> Path:
        folder = self._folder(name, n_hosts, n_ranks)
        missing = {point: plain for point, plain in points.items() if not is_measured(folder / point)}
        if missing:
            announce(f"{folder.name}: {', '.join(missing)}")
            for point, plain in missing.items():
                write_config(folder / point, plain)
            write_config(folder, next(iter(missing.values())))
            (folder / "log").mkdir(exist_ok=True)
            run_on_hosts(self.lab.networks[name] if name else None, n_hosts, n_ranks, folder, self.lab.timeout_s)
        return folder

    def _folder(self, name: str | None, n_hosts: int, n_ranks: int) -> Path:
        return self.run_dir / "rounds" / f"{name or 'alone'}-{n_hosts}x{n_ranks}"

    def _ranks(self, case: str) -> int:
        return self.lab.ranks_per_host.get(case, 1)

    def _by_ranks(self, cases: Iterable[str]) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for case in cases:
            found.setdefault(self._ranks(case), []).append(case)
        return found

    def _meter(self, case: str) -> str:
        return f"measure.meter={(self._folder(None, 1, self._ranks(case)) / f'{case}-{REAL}' / METER).resolve()}"

    def _plain(self, case: str, n_hosts: int, *more: str) -> dict[str, Any]:
        given = [*self.lab.cases[case], *COMMON, f"measure.steps={self.lab.steps}", "measure.breakdown_steps=0", *more]
        plain = compose_plain(given)
        if plain["plan"]["pipeline_parallel_size"] > 1:  # stages are dealt out over the hosts there are
            plain = compose_plain([*given, f"plan.pipeline_parallel_size={n_hosts}"])
        return plain


def row_of(  # noqa: PLR0917  # what a row is made of, each from elsewhere
    name: str, network: LabNetwork, measured: LabPoint, alone: LabPoint, second: LabPoint, probes: Sequence[NetworkProbe]
) -> LabRow:
    """A point beside its forecasts, which are made of everything but what was measured of the point itself."""
    point = unmeasured(measured)
    return LabRow(
        network=name,
        case=point.case,
        n_hosts=point.n_hosts,
        forecast=forecast(point, alone, second, network, probes),
        from_one_host=forecast(point, alone, None, network, [probe for probe in probes if probe.n_nodes != 2]),
        promised_log_sd=promised_log_sd(point, alone, second, network, PROBE_BYTES),
        linear_s=linear_s(alone, point),
        doubling_s=doubling_s(alone, second, point),
        measured_s=measured.step_s,
        measured_error_s=measured.standard_error_s,
    )


def point_of(case: str, n_hosts: int, ranks_per_host: int, m: Measurement) -> LabPoint:
    """What is kept of a measurement."""
    phases = m.breakdown.ranks[0].phase_s if n_hosts == 1 and m.breakdown and m.breakdown.ranks else {}
    step_s = m.tokens_per_step / m.tokens_per_s.value
    return LabPoint(
        case=case,
        n_hosts=n_hosts,
        ranks_per_host=ranks_per_host,
        model=m.model,
        plan=m.plan,
        batch=m.batch,
        is_metered=bool(m.invalid),
        step_s=step_s,
        median_s=m.step_s.median,
        standard_error_s=step_s * stats.standard_error(m.tokens_per_s) / m.tokens_per_s.value,
        n_steps=m.n_steps,
        forward_s=phases.get(Phase.FORWARD),
        backward_s=phases.get(Phase.BACKWARD),
        optimizer_s=phases.get(Phase.OPTIMIZER),
    )


def unmeasured(point: LabPoint) -> LabPoint:
    """The same with nothing that was measured."""
    nan = float("nan")
    return replace(point, step_s=nan, median_s=nan, standard_error_s=nan, n_steps=0, forward_s=None, backward_s=None, optimizer_s=None)


def without_samples(probe: NetworkProbe) -> NetworkProbe:
    """The same with the median in place of the samples, of which an experiment would have too many."""
    points = (replace(p, timing=replace(p.timing, samples_s=(p.timing.median_s,))) for p in probe.collectives)
    return replace(probe, collectives=tuple(points))
