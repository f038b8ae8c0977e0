"""A chart as scalable vector graphics: no script, no network; colours come from the page, so that it prints and darkens with it."""

import math
from collections.abc import Callable, Iterable
from html import escape

from bench.report.chart import Axis, Chart, Kind, Series, Span, limits, ticks
from bench.report.format import short

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 84, 16, 16, 44  # room for the larger letters of a phone
BAR_HEIGHT, CATEGORY_LEFT = 30, 230
WORD_ROOM = 0.12  # of the height, above what is drawn, for words on spans
MOST_MARKS = 400  # points that can be pointed at; beyond it a line alone is drawn
MANY_MARKS = 24  # points of a line; more are seen only when pointed at
TONES = 8

Scale = Callable[[float], float]


def svg(chart: Chart) -> str:
    """The picture as one element."""
    return _stacked(chart) if chart.series and chart.series[0].kind is Kind.STACK else _plotted(chart)


def _plotted(chart: Chart) -> str:
    xs = [v for s in chart.series for v in s.x] + [v for span in chart.spans for v in (span.begin, span.end)]
    ys = [v for s in chart.series for v in (*s.y, *s.low, *s.high)]
    x_ends, y_ends = limits(xs, chart.x), limits(ys, chart.y)
    if chart.spans and not chart.y.is_log:
        y_ends = (y_ends[0], y_ends[1] + WORD_ROOM * (y_ends[1] - y_ends[0]))
    x = _scale(x_ends, (LEFT, WIDTH - RIGHT), chart.x.is_log)
    y = _scale(y_ends, (HEIGHT - BOTTOM, TOP), chart.y.is_log)
    parts = [*_grid(chart, x_ends, y_ends, x, y), *(_span(span, x) for span in chart.spans)]
    parts += [band for s in chart.series for band in _band(s, x, y)]
    parts += [mark for s in chart.series for mark in _marks(s, x, y)]
    parts += [_word(span, x) for span in chart.spans]
    return _element(chart, HEIGHT, parts)


def _scale(ends: tuple[float, float], pixels: tuple[float, float], is_log: bool) -> Scale:
    low, high = (math.log10(end) for end in ends) if is_log else ends
    slope = (pixels[1] - pixels[0]) / (high - low or 1.0)

    def place(value: float) -> float:
        at = math.log10(max(value, 1e-300)) if is_log else value
        return pixels[0] + (at - low) * slope

    return place


def _grid(chart: Chart, x_ends: tuple[float, float], y_ends: tuple[float, float], x: Scale, y: Scale) -> Iterable[str]:
    floor = HEIGHT - BOTTOM
    for value, text in _labelled(chart.y, y_ends):
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{escape(text)}</text>'
    for value, text in _labelled(chart.x, x_ends):
        yield f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{floor}"/>'
        yield f'<text class="tick" x="{x(value):.1f}" y="{floor + 18}" text-anchor="middle">{escape(text)}</text>'
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>'
    yield f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(chart.x.label)}</text>'
    middle = (TOP + floor) / 2
    yield (
        f'<text class="label" x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">{escape(chart.y.label)}</text>'
    )


def _labelled(axis: Axis, ends: tuple[float, float]) -> list[tuple[float, str]]:
    if axis.categories:
        return [(float(i), name) for i, name in enumerate(axis.categories)]
    return [(value, short(value)) for value in ticks(*ends, axis.is_log) if ends[0] <= value <= ends[1]]


def _span(span: Span, x: Scale) -> str:
    begin, end, floor = x(span.begin), x(span.end), HEIGHT - BOTTOM
    if end - begin < 1:
        return f'<line class="mark" x1="{begin:.1f}" x2="{begin:.1f}" y1="{TOP}" y2="{floor}"/>'
    return f'<rect class="stretch" x="{begin:.1f}" y="{TOP}" width="{end - begin:.1f}" height="{floor - TOP}"/>'


def _word(span: Span, x: Scale) -> str:
    return f'<text class="tick" x="{x(span.begin) + 4:.1f}" y="{TOP + 12}">{escape(span.label)}</text>'


def _band(s: Series, x: Scale, y: Scale) -> Iterable[str]:
    if s.low and s.kind is Kind.LINE:
        there = [f"{x(a):.1f},{y(b):.1f}" for a, b in zip(s.x, s.high, strict=True)]
        back = [f"{x(a):.1f},{y(b):.1f}" for a, b in zip(s.x, s.low, strict=True)]
        yield f'<polygon class="band t{s.tone % TONES}" points="{" ".join([*there, *reversed(back)])}"/>'


def _marks(s: Series, x: Scale, y: Scale) -> Iterable[str]:
    tone = f"t{s.tone % TONES}"
    if s.kind is Kind.BARS:
        width = (x(s.x[1]) - x(s.x[0])) * 0.92 if len(s.x) > 1 else 20.0
        for a, b, label in zip(s.x, s.y, _labels(s), strict=True):
            yield _pointed(f'<rect class="bar {tone}" x="{x(a) - width / 2:.1f}" y="{y(b):.1f}" width="{width:.1f}"', y(0) - y(b), label)
        return
    if s.kind is Kind.LINE:
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(s.x, s.y, strict=True))
        yield f'<polyline class="line {tone}{" dotted" if s.dotted else ""}" points="{points}"/>'
    if len(s.x) <= MOST_MARKS:
        for i, (a, b, label) in enumerate(zip(s.x, s.y, _labels(s), strict=True)):
            if s.kind is Kind.POINTS and s.low:
                yield f'<line class="whisker {tone}" x1="{x(a):.1f}" x2="{x(a):.1f}" y1="{y(s.low[i]):.1f}" y2="{y(s.high[i]):.1f}"/>'
            kind = " faint" if s.kind is Kind.LINE and len(s.x) > MANY_MARKS else " hollow" if s.dotted else ""
            shape = f'<circle class="dot {tone}{kind}" cx="{x(a):.1f}" cy="{y(b):.1f}"'
            yield f'{shape} r="{3.5 if s.kind is Kind.POINTS else 2.5}"><title>{escape(label)}</title></circle>'


def _labels(s: Series) -> tuple[str, ...]:
    return s.labels or tuple(f"{s.name}: {short(a)}, {short(b)}" for a, b in zip(s.x, s.y, strict=True))


def _pointed(shape: str, height: float, label: str) -> str:
    return f'{shape} height="{max(height, 0):.1f}"><title>{escape(label)}</title></rect>'


def _stacked(chart: Chart) -> str:
    """One horizontal bar per category of the y axis; each series is one part of all bars."""
    names, height = chart.y.categories, TOP + BAR_HEIGHT * len(chart.y.categories) + BOTTOM
    ends = [sum(s.x[i] for s in chart.series) for i in range(len(names))]
    x = _scale((0.0, max(ends, default=1.0) * 1.02 or 1.0), (CATEGORY_LEFT, WIDTH - RIGHT), False)
    floor, parts = height - BOTTOM, []
    for value in ticks(0.0, max(ends, default=1.0) * 1.02 or 1.0, False):
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{floor}"/>')
        parts.append(f'<text class="tick" x="{x(value):.1f}" y="{floor + 18}" text-anchor="middle">{escape(short(value))}</text>')
    for i, name in enumerate(names):
        top = TOP + i * BAR_HEIGHT
        parts.append(f'<text class="tick" x="{CATEGORY_LEFT - 8}" y="{top + 19}" text-anchor="end">{escape(name)}</text>')
        at = 0.0
        for s in chart.series:
            shape = f'<rect class="bar t{s.tone % TONES}" x="{x(at):.1f}" y="{top + 5}" width="{max(x(at + s.x[i]) - x(at), 0):.1f}"'
            parts.append(_pointed(shape, BAR_HEIGHT - 10, s.labels[i] if s.labels else f"{name}, {s.name}: {short(s.x[i])}"))
            at += s.x[i]
    middle = (CATEGORY_LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="label" x="{middle}" y="{height - 6}" text-anchor="middle">{escape(chart.x.label)}</text>')
    return _element(chart, height, parts)


def _element(chart: Chart, height: float, parts: Iterable[str]) -> str:
    title = f"<title>{escape(chart.title)}</title><desc>{escape(chart.summary)}</desc>"
    opening = f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{chart.name}-title" xmlns="http://www.w3.org/2000/svg">'
    return opening + title + "".join(parts) + "</svg>"
