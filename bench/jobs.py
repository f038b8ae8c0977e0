"""One configuration on its way to a result, over as many launches and attempts as that takes."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import bench
from bench.codec import encode
from bench.config.compose import find_device, load
from bench.config.resolve import check_early
from bench.config.schema import Config
from bench.cost.utilization import utilization
from bench.errors import BenchError, ExitCode, Interrupted, InvalidMeasurement, Preempted, RankLost, TimedOut, UsageError
from bench.facts.attempt import RunState, Status
from bench.facts.hardware import Device
from bench.facts.measurement import Measurement, MeasurementWarning, Utilization, WarningKind
from bench.facts.result import SCHEMA_VERSION, Measured, Result
from bench.forecast import projections
from bench.report.event_log import event_log
from bench.report.markdown import markdown_report
from bench.report.tables import measured_table
from bench.report.terminal import print_tables, tell, terminal_progress
from bench.run.devices import find_backend, find_world_size, n_cores
from bench.run.launch import Ended, RankPlace, launch_ranks
from bench.run.launches import is_counted, pooled, scaled, share_left
from bench.run.nodes import find_node
from bench.run.notices import Notice, watch
from bench.run.preempt import Guard
from bench.run.trackers import track
from bench.store import attempts, failures, results
from bench.store.logs import mask_logs
from bench.worker import measure, unwritten

WAIT_FOR_RANKS_S = 60.0  # of an attempt whose launcher was killed; they have their grace, and then they end


@dataclass
class Job:
    """One configuration, its run directory, and what its launches have measured so far.

    `place` is that of this rank where somebody else has started ranks; `run_dir` is None on all of those but the first.
    """

    plain: dict[str, Any]
    config: Config
    place: RankPlace | None
    run_dir: Path | None
    launches: dict[int, Measured] = field(default_factory=dict)
    n_attempts: int = 1

    def share_left(self) -> float:
        """The share of a launch that is still to be measured; 0 when the result can be written."""
        done = [(load(m.config).measure, m.measurement) for m in self.launches.values()]
        return share_left(self.config.measure, done)

    def launch(self, timeout_s: float | None = None) -> None:
        """Nothing; one more launch is kept. Raises what stopped it, after keeping what it has measured."""
        k = next(i for i in range(len(self.launches) + 1) if i not in self.launches)
        plain = self._plain_of_launch()
        launch_dir = self._launch_dir(k)
        try:
            if self.place:
                self.launches[k] = _measure_in_place(load(plain), self.place, launch_dir)
            else:
                assert launch_dir is not None
                _measure_in_ranks(load(plain), plain, launch_dir, timeout_s)
        finally:
            if self.run_dir:
                self.launches = attempts.kept_launches(self.run_dir)
                self._put_other_machines_aside()

    def _launch_dir(self, k: int) -> Path | None:
        """Where launch k works; what the last launch that was cut short has saved of its training is there."""
        if self.run_dir is None:
            return None
        launch_dir = attempts.launch_dir(self.run_dir, k, self.config.measure.launches)
        if cut := [i for i, m in self.launches.items() if m.measurement.is_partial]:
            attempts.hand_on_states(self.run_dir, max(cut), launch_dir)
        return launch_dir

    def _plain_of_launch(self) -> dict[str, Any]:
        """The configuration of the next launch: what the first found for every `auto` holds for all."""
        first = next(iter(self.launches.values()), None)
        plain = dict(first.config if first else self.plain)
        if find_node(os.environ, self.config.launch):  # what was asked for is of each node, what was found of all
            plain["device"] = plain["device"] | {"n_devices": self.plain["device"]["n_devices"]}
        return plain | {"measure": encode(scaled(self.config.measure, self.share_left()))}

    def _put_other_machines_aside(self) -> None:
        """Nothing; launches on another kind of machine than the latest one are not pooled with it."""
        if not self.launches or self.run_dir is None:
            return
        latest = max(self.launches.values(), key=lambda m: m.environment.started_at).environment.machine_kind
        for k in [k for k, m in self.launches.items() if m.environment.machine_kind != latest]:
            tell(f"launch {k} ran on another kind of machine: it is put aside, and measured anew")
            attempts.put_aside(self.run_dir, k)
            del self.launches[k]

    def put_other_sizes_aside(self) -> None:
        """Nothing; launches on more or fewer devices than are here now are not gone on with: what is here is measured anew."""
        asked = self.config.device
        if self.place or asked.n_devices != "auto" or not self.launches or self.run_dir is None:
            return
        n_nodes = node.n_nodes if (node := find_node(os.environ, self.config.launch)) else 1
        here = n_nodes * find_world_size(find_backend(None if asked.backend == "auto" else asked.backend), None)
        for k in [k for k, m in self.launches.items() if m.survey.world_size != here]:
            tell(f"launch {k} ran on {self.launches[k].survey.world_size} devices, here are {here}: it is put aside, and measured anew")
            attempts.put_aside(self.run_dir, k)
            del self.launches[k]

    def result(self, with_projections: bool = True) -> Result:
        """The result of what was measured so far."""
        kept = list(self.launches.values())
        enough = [m for m in kept if is_counted(self.config.measure, m.measurement)] or kept
        config = enough[0].config | {"measure": self.plain["measure"]}
        whole = pooled([m.measurement for m in enough], self.config.measure.target_ci)
        measurement, use = _used(replace(whole, warnings=(*whole.warnings, *_remarks(kept, enough))))
        project = with_projections and not measurement.invalid
        projected, left_out = projections(load(config), measurement) if project else ((), ())
        return Result(
            schema_version=SCHEMA_VERSION,
            run_id=self.run_dir.resolve().name if self.run_dir else "",
            run_dir=str(self.run_dir or ""),
            bench_version=bench.__version__,
            config=config,
            environment=enough[0].environment,
            survey=enough[0].survey,
            measurement=measurement,
            utilization=use,
            projections=projected,
            not_projected=left_out,
            warnings=measurement.warnings,
            launches=tuple(m.measurement for m in kept) if len(kept) > 1 else (),
        )

    def finish(self) -> Result:
        """The result, written. Raises InvalidMeasurement afterwards where it is no training speed."""
        result = self.result()
        if self.run_dir:
            result = self._told(self.run_dir, result)
            results.write_config(self.run_dir, result.config)
            results.write_steps(self.run_dir, result.launches or (result.measurement,))
            results.write_whole(self.run_dir / results.REPORT, markdown_report(result))
            results.write_result(self.run_dir, result)
            self._close(self.run_dir, result)
        if result.measurement.invalid:
            reasons, where = "; ".join(result.measurement.invalid), f"; kept in {result.run_dir}" if result.run_dir else ""
            raise InvalidMeasurement(f"not a training speed: {reasons}{where}")
        return result

    def _close(self, run_dir: Path, result: Result) -> None:
        """Nothing; the run is finished, and only then its launches are forgotten: who is killed before finds them, and ends the same."""
        self.write_status(RunState.FINISHED, ExitCode.INVALID_MEASUREMENT if result.measurement.invalid else ExitCode.OK)
        (run_dir / results.PARTIAL).unlink(missing_ok=True)
        attempts.forget_launches(run_dir)

    def _told(self, run_dir: Path, result: Result) -> Result:
        """The result, after the trackers have heard of it and the event log is written; who did not listen is among the warnings."""
        if self.config.event_log:
            results.write_whole(run_dir / results.EVENT_LOG, event_log(result))
        return replace(result, warnings=(*result.warnings, *track(result, self.config.trackers, run_dir)))

    def give_up(self, error: BenchError, goes_on: bool) -> None:
        """Nothing; status.json has the reason, and partial.json what was measured; a result that is there is final."""
        if self.run_dir is None:
            return
        if (self.run_dir / results.RESULT).exists():
            self._close(self.run_dir, results.read_result(self.run_dir))
            return
        if self.launches:
            so_far = self.result(with_projections=False)
            results.write_partial(self.run_dir, so_far)
            if isinstance(error, Interrupted):
                print_tables(measured_table(so_far))
        self.write_status(RunState.PARTIAL if goes_on else RunState.FAILED, error.exit_code, str(error))

    def write_status(self, state: RunState, exit_code: int | None = None, reason: str = "") -> None:
        """Nothing; status.json says how the run stands."""
        assert self.run_dir is not None
        status = Status(state=state, exit_code=exit_code, reason=reason, n_attempts=self.n_attempts)
        attempts.write_status(self.run_dir, status)


def finished(plain: Mapping[str, Any], config: Config) -> Result | None:
    """The result that an earlier attempt at the same has left in `out`; None where there is none yet.

    Raises UsageError where it is that of another configuration: results are never overwritten.
    """
    if not config.out or not (Path(config.out) / results.RESULT).exists():
        return None
    attempts.begin(Path(config.out), plain)
    return results.read_result(Path(config.out))


@contextmanager
def job_at(plain: dict[str, Any], place: RankPlace | None, is_last: bool = True) -> Iterator[Job]:
    """The job in its run directory, which nobody else works in meanwhile. What stops it is written down there.

    `is_last`: a lost rank is the end of it, not a reason to go on later.
    Raises UsageError where the directory is in use, or was begun with another configuration, and StoreError where it fills up.
    """
    if place and place.rank > 0:
        yield Job(plain, load(plain), place, None)
        return
    run_dir = results.open_run_dir(plain["out"], plain["name"])
    with attempts.held(run_dir), _heeding_notices():
        attempts.begin(run_dir, plain)
        attempts.clear_up(run_dir, WAIT_FOR_RANKS_S)
        job = _opened(plain, place, run_dir)
        try:
            yield job
        except InvalidMeasurement:
            raise  # the result has been written, with its status
        except BenchError as error:
            goes_on = isinstance(error, Preempted | Interrupted) and not (is_last and isinstance(error, RankLost))
            with suppress(OSError):  # a disk that is full has been told of
                job.give_up(error, goes_on)
            raise
        except OSError as error:
            raise unwritten(run_dir, error, [m.measurement.tokens_per_s for m in job.launches.values()]) from None


@contextmanager
def _heeding_notices() -> Iterator[None]:
    """A cloud's word that this machine goes is as good as a SIGTERM meanwhile."""

    def obey(notice: Notice) -> None:
        tell(f"{notice}: stopping")
        os.kill(os.getpid(), signal.SIGTERM)

    watched = watch(obey)
    try:
        yield
    finally:
        if watched:
            watched.stop()


def _opened(plain: dict[str, Any], place: RankPlace | None, run_dir: Path) -> Job:
    """The job as far as it has come. Raises UsageError, after writing it down, for a configuration that cannot be one."""
    before = attempts.read_status(run_dir)
    n_attempts = before.n_attempts + 1 if before else 1
    try:
        config = load(plain)
    except UsageError as error:  # and not who asks to stop meanwhile, which is no fault of the configuration
        attempts.write_status(run_dir, Status(state=RunState.FAILED, exit_code=error.exit_code, reason=str(error), n_attempts=n_attempts))
        raise
    job = Job(plain, config, place, run_dir, attempts.kept_launches(run_dir), n_attempts)
    job.put_other_sizes_aside()
    job.write_status(RunState.RUNNING)
    return job


def _measure_in_place(config: Config, place: RankPlace, launch_dir: Path | None) -> Measured:
    """What this rank and the others that somebody has started measured together."""
    guard = Guard(before_leaving=tell)
    guard.install()
    return measure(config, place, terminal_progress() if place.rank == 0 else None, launch_dir, guard)


def _measure_in_ranks(config: Config, plain: Mapping[str, Any], launch_dir: Path, timeout_s: float | None) -> None:
    """Nothing; the ranks have left what they measured. Raises what stopped them."""
    asked = config.device
    backend = find_backend(None if asked.backend == "auto" else asked.backend)
    world_size = find_world_size(backend, None if asked.n_devices == "auto" else asked.n_devices)
    node = find_node(os.environ, config.launch)
    n_all = world_size * (node.n_nodes if node else 1)
    check_early(config, n_all)
    threads = max(1, n_cores() // world_size) if asked.threads_per_rank == "auto" else asked.threads_per_rank
    results.write_config(launch_dir, dict(plain))
    failures.forget_failures(launch_dir)
    ended = launch_ranks(["worker", str(launch_dir)], world_size, threads, config.measure.grace_s, timeout_s, node=node)
    raise_failure(ended, launch_dir, n_all, timeout_s)


def raise_failure(ended: Ended, folder: Path, world_size: int, timeout_s: float | None = None) -> None:
    """Nothing where all ranks ended well; raises what stopped them otherwise."""
    mask_logs(folder)
    again = "the same command goes on from there" if (folder / results.MEASURED).exists() else "nothing was measured yet; run it again"
    if ended.signal == signal.SIGINT:
        raise Interrupted(f"interrupted; kept in {folder}: {again}")
    if ended.signal is not None:
        raise Preempted(f"asked to stop by {signal.Signals(ended.signal).name}; kept in {folder}: {again}")
    if ended.is_late:
        raise TimedOut(f"not done within {timeout_s:g} s; give it longer, or a smaller model")
    if ended.exit_codes:
        raise failures.failure_of(folder, ended.exit_codes, world_size, ended.killed_for_memory)


def _remarks(kept: list[Measured], enough: list[Measured]) -> list[MeasurementWarning]:
    """What is to be said of launches that were cut short, and of several hosts."""
    found = []
    if cut := [m.measurement.n_steps for m in kept if m.measurement.is_partial]:
        left_out = len(kept) - len(enough)
        text = f"{len(cut)} of {len(kept)} launches were cut short, after {', '.join(map(str, cut))} steps"
        text += f"; {left_out} with too few steps for an interval are kept and not counted" if left_out else ""
        found.append(MeasurementWarning(kind=WarningKind.CUT_SHORT, text=text))
    hosts = sorted({m.environment.host for m in kept})
    if len(hosts) > 1:
        text = f"launches ran on {len(hosts)} machines of one kind: {', '.join(hosts)}"
        found.append(MeasurementWarning(kind=WarningKind.OTHER_HOSTS, text=text))
    return found


def _used(measurement: Measurement) -> tuple[Measurement, Utilization]:
    """The measurement and its use of the peak; a use above 100 % makes it invalid."""
    device: Device | None = find_device(measurement.device_name)
    try:
        return measurement, utilization(measurement, device)
    except InvalidMeasurement as error:
        return replace(measurement, invalid=(*measurement.invalid, str(error))), utilization(measurement, None)
