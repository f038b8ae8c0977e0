"""The kept experiment on shaped links: the predictor, run again on what one and two hosts told, against what more hosts took."""

import statistics
from functools import cache
from pathlib import Path

import pytest

from bench.facts.lab import LabResult, LabRow
from bench.lab import row_of
from bench.report.lab_tables import RULES, error, is_inside, kept, percentile
from bench.report.links_page import links_page
from bench.store.labs import read_lab

ROOT = Path(__file__).parents[2]


@cache
def result() -> LabResult:
    """As it was measured."""
    return read_lab(ROOT / "benchmarks" / "links.json")


def again(told: LabResult) -> list[LabRow]:
    """Every row, predicted anew from what is kept of one and two hosts and of the links."""
    alone = {point.case: point for point in told.alone}
    rows = []
    for name, found in told.networks.items():
        second = {point.case: point for point in found.points if point.n_hosts == 2}
        many = [point for point in found.points if point.n_hosts > 2]
        rows += [row_of(name, found.network, point, alone[point.case], second[point.case], found.probes) for point in many]
    return rows


@pytest.fixture(scope="module")
def rows() -> list[LabRow]:
    return again(result())


def test_the_page_tells_what_the_predictor_says_today(rows: list[LabRow]) -> None:
    told = {(row.network, row.case, row.n_hosts): row for row in result().rows}
    for row in rows:
        before = told[row.network, row.case, row.n_hosts]
        assert row.forecast.step_s == pytest.approx(before.forecast.step_s, rel=1e-6), row
        assert row.forecast.log_sd == pytest.approx(before.forecast.log_sd, rel=1e-6), row
        assert row.measured_s == before.measured_s
    assert (ROOT / "docs" / "links.md").read_text(encoding="utf-8") == links_page(result())


def test_four_to_sixteen_hosts_come_out_as_predicted(rows: list[LabRow]) -> None:
    assert len(rows) >= 24
    off = sorted(abs(error(row, RULES["from two hosts"])) for row in rows)
    assert statistics.median(off) <= 0.07, off
    assert percentile(off, 0.9) <= 0.15, off
    assert 0.70 <= sum(map(is_inside, rows)) / len(rows) <= 0.90


@pytest.mark.parametrize("rule", ["linear", "last doubling again"])
def test_rules_without_a_model_are_further_off(rows: list[LabRow], rule: str) -> None:
    for share in (0.5, 0.9):
        ours, theirs = (percentile(sorted(abs(error(row, RULES[name])) for row in rows), share) for name in ("from two hosts", rule))
        assert ours < theirs


def test_a_sick_link_was_found_and_priced(rows: list[LabRow]) -> None:
    sick = [row for row in rows if result().networks[row.network].network.sick_host is not None]
    assert sick
    for row in sick:
        assert abs(error(row, RULES["from two hosts"])) <= 0.15, row
        assert row.measured_s > 2 * min(row.linear_s, row.doubling_s)


def test_metered_compute_is_honest() -> None:
    assert {h.n_hosts for h in result().honesty} == {1, 2}
    for h in result().honesty:
        assert h.metered_s == pytest.approx(h.real_s, rel=0.05), h


def test_a_second_host_is_worth_at_least_half_of_what_was_promised(rows: list[LabRow]) -> None:
    worth = [row for row in rows if row.promised_log_sd < 0.8 * row.from_one_host.log_sd]
    assert worth
    for row in worth:
        assert kept(row) >= 0.5, row
    # and what was promised is no empty promise: predictions do come closer
    closer = [abs(error(row, RULES["from two hosts"])) < abs(error(row, RULES["from one host"])) for row in worth]
    assert sum(closer) > len(closer) / 2
