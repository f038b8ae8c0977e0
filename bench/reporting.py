"""One page from whatever run directories hold: a measurement, a profile, projections, plans, a decision."""

from collections.abc import Sequence
from pathlib import Path

from bench.config.compose import compose
from bench.errors import UsageError
from bench.facts.result import Result
from bench.report.decision_page import decision_sections
from bench.report.html import Section, page
from bench.report.run_page import plans_section, profile_section, run_figures, run_sections
from bench.store.decisions import DECISION, read_decision
from bench.store.forecasts import PLANS, read_plans
from bench.store.profiles import PROFILE, read_profile
from bench.store.results import PARTIAL, RESULT, read_result, write_file, write_whole

PAGE = "report.html"


def report(*arguments: str) -> Path:
    """Where the page has been written: `out`, or report.html in the first run directory that is named.

    Raises UsageError where a directory holds nothing to report.
    """
    runs = [Path(text) for text in arguments if "=" not in text]
    config = compose([text for text in arguments if "=" in text])
    if not runs:
        raise UsageError("report: no run is named; give run directories, as in bench report runs/bench/20261125T120000Z-ab12")
    results = [read_result(file) for run in runs if (file := _result_of(run))]
    sections = [section for run in runs for section in _sections(run)]
    if not sections:
        raise UsageError(f"report: {', '.join(map(str, runs))} holds no {RESULT}, {PROFILE}, {PLANS} or {DECISION}; give a run directory")
    file = Path(config.out) if config.out else runs[0] / PAGE
    write_file(file, page_of(results, sections))
    return file


def page_of(results: Sequence[Result], sections: Sequence[Section]) -> str:
    """The page's text; its head is that of the first result."""
    if not results:
        return page("A report", "", (), sections)
    first = results[0]
    title = f"{first.measurement.model.name} on {first.measurement.world_size} x {first.measurement.device_name}"
    return page(title, f"Run {first.run_id}, {first.environment.started_at}", run_figures(first), sections)


def write_page(run_dir: Path, result: Result) -> None:
    """Nothing; report.html shows the result."""
    write_whole(run_dir / PAGE, page_of([result], run_sections(result)))


def _result_of(run: Path) -> Path | None:
    if run.is_file():
        return run
    return next((run / name for name in (RESULT, PARTIAL) if (run / name).exists()), None)


def _sections(run: Path) -> list[Section]:
    found: list[Section] = []
    if file := _result_of(run):
        found += run_sections(read_result(file))
    if (run / PROFILE).exists():
        found.append(profile_section(read_profile(run)))
    if (run / PLANS).exists():
        found.append(plans_section(read_plans(run)))
    if (run / DECISION).exists():
        found += decision_sections(read_decision(run))
    return found
