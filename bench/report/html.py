"""A report as one page: no network, nothing beside it; readable on a phone, on paper, in the dark, and by ear."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from bench.report.chart import Chart, table_of
from bench.report.svg import TONES, svg
from bench.report.tables import Table

PAGE = Path(__file__).parent / "page"
SHORT_LINE = 18  # letters of a figure that is not broken in a cell


@dataclass(frozen=True)
class Figure:
    """One number that the page begins with."""

    label: str
    value: str
    detail: str
    provenance: str


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading: sentences, pictures, tables, and a panel that answers at once."""

    title: str
    lead: str = ""
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    panel: str = ""  # JSON for the script of the page
    is_folded: bool = False  # each table is a line that opens; on paper all are open

    @property
    def anchor(self) -> str:
        """The name that links to it."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def page(title: str, subtitle: str, figures: Sequence[Figure], sections: Sequence[Section]) -> str:
    """The page as text. Whatever comes from a run is escaped."""
    environment = Environment(loader=PackageLoader("bench.report", "page"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(drawn=lambda chart: Markup(svg(chart)), data_of=data_of, legend=legend, paragraphs=paragraphs)
    return environment.get_template("report.html").render(
        title=title,
        subtitle=subtitle,
        figures=figures,
        sections=sections,
        style=Markup((PAGE / "report.css").read_text(encoding="utf-8")),
        script=Markup((PAGE / "report.js").read_text(encoding="utf-8")),
    )


def data_of(chart: Chart) -> str:
    """The data behind a chart as a link that needs no server."""
    return "data:text/csv;base64," + base64.b64encode(table_of(chart).encode()).decode()


def legend(chart: Chart) -> list[tuple[int, str, str]]:
    """Colour, name and stroke of every series, where there are several."""
    if len(chart.series) < 2:
        return []
    return [(s.tone % TONES, s.name, "dotted" if s.dotted else s.kind.value) for s in chart.series]


def paragraphs(cell: str) -> Markup:
    """A cell of a table, its lines apart; a figure with its interval stays on one."""
    return Markup("<br>").join(_line(line) for line in cell.split("\n"))


def _line(text: str) -> Markup:
    is_figure = text[:1].isdigit() and " " in text and len(text) <= SHORT_LINE
    return Markup('<span class="short">{}</span>').format(text) if is_figure else Markup.escape(text)
