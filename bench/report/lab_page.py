"""An experiment on shaped links as a page: what was predicted from two hosts, dotted with its band, and what was measured then."""

import statistics

from bench.facts.lab import LabNetworkResult, LabPoint, LabResult, LabRow
from bench.report.chart import Axis, Chart, Kind, Series
from bench.report.format import percent, scaled, seconds
from bench.report.html import Figure, Section, page
from bench.report.lab_tables import RULES, error, errors_table, honesty_table, is_inside, rows_table, worth_table

LEAD = (
    "Hosts are network namespaces of one machine, joined by links whose rate and delay are set. Every case is measured on one and two "
    "hosts; more of them are predicted from that, and measured afterwards. Compute is metered: waits of measured length stand for it. "
    "Traffic is real."
)


def lab_page(result: LabResult) -> str:
    """The page's text."""
    return page("Predicted against measured scaling", f"{result.date}, {result.machine}", lab_figures(result), lab_sections(result))


def lab_figures(result: LabResult) -> tuple[Figure, ...]:
    """What the page begins with."""
    rows = result.rows
    found = [
        Figure(
            f"median error {name}", percent(statistics.median(abs(error(row, rule)) for row in rows), 1), f"{len(rows)} steps", "measured"
        )
        for name, rule in RULES.items()
    ]
    inside = sum(map(is_inside, rows)) / len(rows)
    return (*found, Figure("inside the 80 % interval", percent(inside, 0), "of the measured steps", "measured"))


def lab_sections(result: LabResult) -> list[Section]:
    """The parts of the page."""
    charts = tuple(network_chart(name, network, result.alone) for name, network in result.networks.items())
    tables = (errors_table(result.rows), rows_table(result), worth_table(result.rows), honesty_table(result.honesty))
    return [Section("Steps on shaped links", LEAD, charts, tables)]


def network_chart(name: str, result: LabNetworkResult, alone: tuple[LabPoint, ...]) -> Chart:
    """Steps of the cases of a network over its hosts."""
    series = [one for tone, case in enumerate(result.network.cases) for one in case_series(case, tone, result, alone)]
    return Chart(
        f"links-{name}",
        f"{name}: {links_words(result)}",
        f"Predicted from two hosts, with 80 % bands, and measured: {_worst(result.rows)}.",
        Axis("hosts", is_log=True),
        Axis("seconds of a step", is_log=True),
        tuple(series),
        provenance="points measured; dotted lines predicted",
    )


def links_words(result: LabNetworkResult) -> str:
    """Rate, delay, and what is odd about the links."""
    network, words = result.network, []
    words.append(f"{scaled(8 * network.port_bytes_per_s, 'bit/s')} a host")
    if network.one_way_s:
        words.append(f"{seconds(network.one_way_s)} from host to host")
    if network.uplink_bytes_per_s is not None:
        words.append(f"{scaled(8 * network.uplink_bytes_per_s, 'bit/s')} between every {network.hosts_per_leaf} hosts and the others")
    if network.sick_host is not None:
        words.append(f"a tenth of it on host {network.sick_host}")
    return ", ".join(words)


def case_series(case: str, tone: int, result: LabNetworkResult, alone: tuple[LabPoint, ...]) -> list[Series]:
    """What was predicted of a case, and what was measured."""
    rows = sorted((row for row in result.rows if row.case == case), key=lambda row: row.n_hosts)
    points = [point for point in (*alone, *result.points) if point.case == case]
    points.sort(key=lambda point: point.n_hosts)
    labels = tuple(f"{case} on {p.n_hosts} hosts: {seconds(p.step_s)} measured" for p in points)
    hosts = tuple(float(row.n_hosts) for row in rows)
    told = tuple(
        f"{case} on {r.n_hosts} hosts: {seconds(r.forecast.step_s)} predicted, {seconds(r.forecast.low_s)} to {seconds(r.forecast.high_s)}"
        for r in rows
    )
    forecasts = [row.forecast for row in rows]
    low, high = tuple(f.low_s for f in forecasts), tuple(f.high_s for f in forecasts)
    n_hosts, steps = tuple(float(p.n_hosts) for p in points), tuple(p.step_s for p in points)
    return [
        Series(case, hosts, tuple(f.step_s for f in forecasts), low=low, high=high, labels=told, dotted=True, tone=tone),
        Series(f"{case}, measured", n_hosts, steps, Kind.POINTS, labels=labels, tone=tone),
    ]


def _worst(rows: tuple[LabRow, ...]) -> str:
    worst = max(rows, key=lambda row: abs(error(row, RULES["from two hosts"])))
    return f"furthest off is {worst.case} on {worst.n_hosts} hosts, by {100 * error(worst, RULES['from two hosts']):+.1f} %"
