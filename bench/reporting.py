"""One page from whatever run directories hold: a measurement, a profile, projections, plans, a decision, a laboratory."""

from collections.abc import Sequence
from pathlib import Path

from bench.backtest import flops_per_token as flops_of_row
from bench.backtest import published_rows
from bench.config.compose import compose, load
from bench.cost.flops import Convention, flops_per_token
from bench.errors import UsageError
from bench.facts.hardware import Device
from bench.facts.result import Result
from bench.facts.scaling import ScalingKind
from bench.forecast import scalings, what_ifs
from bench.report.decision_page import decision_sections
from bench.report.forecast_charts import Like
from bench.report.html import Section, page
from bench.report.lab_page import lab_sections
from bench.report.run_page import outlook_section, panel_data, plans_section, profile_section, run_figures, run_sections
from bench.report.terminal import tell, tracked
from bench.store.decisions import DECISION, read_decision
from bench.store.forecasts import PLANS, read_plans
from bench.store.labs import LAB, read_lab
from bench.store.profiles import PROFILE, read_profile
from bench.store.results import PAGE, PARTIAL, RESULT, read_result, write_file, write_whole


def report(*arguments: str) -> Path:
    """Where the page has been written: `out`, or report.html in the first run directory that is named.

    Raises UsageError where a directory holds nothing to report.
    """
    runs = [Path(text) for text in arguments if "=" not in text]
    config = compose([text for text in arguments if "=" in text])
    if not runs:
        raise UsageError("report: no run is named; give run directories, as in bench report runs/bench/20261125T120000Z-ab12")
    results = [read_result(file) for run in runs if (file := _result_of(run))]
    sections = [section for run in tracked(runs, "reading") for section in _sections(run)]
    if not sections:
        raise UsageError(
            f"report: {', '.join(map(str, runs))} holds no {RESULT}, {PROFILE}, {PLANS}, {DECISION} or {LAB}; give a run directory"
        )
    file = Path(config.out) if config.out else runs[0] / PAGE
    write_file(file, page_of(results, sections, f"Report of {', '.join(run.resolve().name for run in runs)}"))
    return file


def page_of(results: Sequence[Result], sections: Sequence[Section], title: str = "") -> str:
    """The page's text; its head is that of the first result, or the title."""
    if not results:
        return page(title, "", (), sections)
    first = results[0]
    title = f"{first.measurement.model.name} on {first.measurement.world_size} x {first.measurement.device_name}"
    return page(title, f"Run {first.run_id}, {first.environment.started_at}", run_figures(first), sections)


def write_page(run_dir: Path, result: Result) -> None:
    """Nothing; report.html shows the result."""
    write_whole(run_dir / PAGE, page_of([result], _result_sections(result)))


def _result_sections(result: Result) -> list[Section]:
    try:
        more = outlook(result) if result.projections else ()
    except UsageError as error:
        tell(f"no outlook for {result.run_id}: its configuration is of another version ({error})")
        more = ()
    *told, provenance = run_sections(result)
    return [*told, *more, provenance]


def outlook(result: Result) -> tuple[Section, ...]:
    """How the target scales from here, among published runs, and what other assumptions would make of it."""
    config, m = load(result.config), result.measurement
    predicted = {p.cluster for p in result.projections}
    curves = [c for c in scalings(config, m) if c.cluster in predicted and c.kind is ScalingKind.WEAK]
    grids = [grid for grid in what_ifs(config, m) if grid.cluster in predicted]
    if not curves or not grids:
        return ()
    rates = {c.name: config.price.rental_usd_per_device_hour.get(c.device.name) for c in config.clusters}
    panel = panel_data(grids, {name: rate.value for name, rate in rates.items() if rate}, result.projections[0].n_tokens)
    devices = {c.device.name: c.device for c in config.clusters}
    like = [one for device in devices.values() for one in _published_on(device)]
    return (outlook_section(curves, flops_per_token(config.target.model, Convention.CAUSAL), like, panel),)


def _published_on(device: Device) -> list[Like]:
    """Published production runs on that device, by model FLOP/s of one device."""
    found = []
    for setup, observed, _ in published_rows():
        per_token = flops_of_row(setup)
        if setup.kind == "run" and setup.gpu in device.aliases and setup.n_devices and per_token:
            speed = observed.tokens_per_s_per_device * per_token
            label = (
                f"{setup.source}: {setup.series}, {setup.n_devices:,.0f} x {device.name}, {setup.precision}: {speed / 1e12:,.0f} TFLOP/s"
            )
            found.append(Like(setup.n_devices, speed, label))
    return found


def _result_of(run: Path) -> Path | None:
    if run.is_file():
        return run
    return next((run / name for name in (RESULT, PARTIAL) if (run / name).exists()), None)


def _sections(run: Path) -> list[Section]:
    found: list[Section] = []
    if file := _result_of(run):
        found += _result_sections(read_result(file))
    if (run / PROFILE).exists():
        found.append(profile_section(read_profile(run)))
    if (run / PLANS).exists():
        found.append(plans_section(read_plans(run)))
    if (run / DECISION).exists():
        found += decision_sections(read_decision(run))
    if (run / LAB).exists():
        found += lab_sections(read_lab(run))
    return found
