"""A result as Markdown: report.md."""

from collections.abc import Iterable

from bench.facts.result import Result
from bench.report.breakdown import breakdown_table
from bench.report.tables import Table, measured_table, parts_table, projected_table

PROXY = (
    "A proxy: a small model of a known shape, trained on made-up tokens. It is not the Grok stack, nor any other lab's; "
    "what is projected is a model's answer, with its interval."
)


def markdown_report(result: Result) -> str:
    """The whole result as Markdown."""
    parts = breakdown_table(result.measurement)
    tables = [measured_table(result), *([parts] if parts else [])]
    if result.projections or result.not_projected:
        tables += [projected_table(result.projections, result.not_projected), *map(parts_table, result.projections)]
    e = result.environment
    software = ", ".join(f"{name} {version}" for name, version in e.packages.items())
    foot = (
        f"Run {result.run_id}, {e.started_at}, {e.platform}, Python {e.python}, {software}. "
        "Every step is in steps.jsonl, all else in result.json."
    )
    return "\n\n".join([f"# {result.run_id}", PROXY, *map(markdown_table, tables), foot]) + "\n"


def markdown_table(table: Table) -> str:
    """One table under its title, its notes as a list."""
    lines = [f"## {table.title}", "", _row(table.header), _row("---" for _ in table.header), *map(_row, table.rows)]
    return "\n".join(lines + ([""] + [f"- {note}" for note in table.notes] if table.notes else []))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"
