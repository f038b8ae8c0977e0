"""The page in a real browser, from a file, without a network."""

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from bench.store.results import read_result
from tests.conftest import Bench
from tests.e2e.conftest import needs_chromium

pytestmark = needs_chromium


class Opened:
    """The page as a browser has it, and what it said and asked for meanwhile."""

    def __init__(self, browser: Any, file: Path, width: int = 1200, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())


def colours(png: bytes) -> int:
    """Different bytes of the picture's filtered lines: a handful where it is blank."""
    at, data = 8, b""
    while at < len(png):
        size = int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += 12 + size
    return len(set(zlib.decompress(data)))


@pytest.fixture
def report(small_run: tuple[object, Path]) -> Path:
    return small_run[1] / "report.html"


def test_the_page_opens_without_errors_or_requests_and_every_chart_is_drawn(browser: Any, report: Path) -> None:
    opened = Opened(browser, report)
    charts = opened.page.locator("svg.chart")
    assert charts.count() >= 6
    for i in range(charts.count()):
        assert colours(charts.nth(i).screenshot()) > 40
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith(("file://", "data:"))] == []
    assert report.stat().st_size < 3_000_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser: Any, report: Path, scheme: str) -> None:
    opened = Opened(browser, report, 390, scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_words_of_a_chart_can_be_read_on_a_phone_and_stay_inside(browser: Any, report: Path) -> None:
    words = Opened(browser, report, 390).page.evaluate(
        """[...document.querySelectorAll("svg.chart text")].map(text => {
            const own = text.getBoundingClientRect(), svg = text.ownerSVGElement, all = svg.getBoundingClientRect();
            const size = parseFloat(getComputedStyle(text).fontSize) * all.width / svg.viewBox.baseVal.width;
            return [size, own.left - all.left, all.right - own.right, text.textContent];
        })"""
    )
    assert min(size for size, *_ in words) > 8  # CSS pixels; they were 5
    assert [word for _, left, right, word in words if min(left, right) < -1] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_bars_anyone(browser: Any, report: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(Opened(browser, report, scheme=scheme).page).response["violations"]
    serious = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []


def test_the_data_behind_a_chart_is_in_the_page(browser: Any, report: Path, small_run: tuple[object, Path]) -> None:
    page = Opened(browser, report).page
    with page.expect_download() as download:
        page.locator("#chart-steps a[download]").click()
    lines = Path(download.value.path()).read_text().splitlines()
    m = read_result(small_run[1]).measurement
    assert download.value.suggested_filename == "steps.csv"
    assert len(lines) == 1 + len(m.ranks[0].warmup_s) + len(m.ranks[0].step_s) + len(m.late_steps)


def slide(page: Any, name: str, place: int) -> None:
    page.locator(f"#what-if input[name={name}]").evaluate(
        "(input, place) => { input.value = place; input.dispatchEvent(new Event('input', {bubbles: true})); }", place
    )


def test_the_panel_moves_and_agrees_with_bench_predict(browser: Any, report: Path, bench: Bench, tmp_path: Path) -> None:
    """Memphis at half its nodes and half its link rate: 6,250 nodes, 25 GB/s."""
    page = Opened(browser, report).page
    answers = page.locator("#what-if .answers")
    page.locator("#what-if select").select_option(label="memphis_100k_h100")
    whole = float(answers.get_attribute("data-tokens-per-s"))
    kept = float(answers.get_attribute("data-effective"))
    slide(page, "n_devices", 3)
    slide(page, "link_factor", 1)
    assert "50,000" in page.locator("#what-if label", has_text="Devices").inner_text()
    halved = float(answers.get_attribute("data-tokens-per-s"))
    asked = ("cluster=memphis_100k_h100", "cluster.n_nodes=6250", "cluster.scale_out.bytes_per_s.value=25e9")
    done = bench("predict", *asked, "out=predicted")
    assert done.returncode == 0, done.stderr
    predicted = json.loads((tmp_path / "predicted" / "prediction.json").read_text())["projections"][0]["tokens_per_s"]["p50"]
    assert halved == pytest.approx(predicted, rel=0.01)
    assert halved != pytest.approx(whole, rel=0.05)
    days = float(page.locator("#what-if dd[data-key=days]").inner_text().split()[0].replace(",", ""))
    slide(page, "mtbf_node_days", 0)
    assert float(answers.get_attribute("data-effective")) < kept
    assert float(page.locator("#what-if dd[data-key=days]").inner_text().split()[0].replace(",", "")) > days


def test_what_a_run_says_is_escaped(browser: Any, bench: Bench, small_run: tuple[object, Path], tmp_path: Path) -> None:
    evil = tmp_path / "result.json"
    text = (small_run[1] / "result.json").read_text()
    evil.write_text(text.replace('"host": "', '"host": "<img src=x onerror=alert(1)>'))
    done = bench("report", str(evil), "out=page.html")
    assert done.returncode == 0, done.stderr
    opened = Opened(browser, tmp_path / "page.html")
    assert opened.page.locator("img").count() == 0
    assert opened.said == []


def test_a_directory_with_nothing_to_report_is_one_line(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = bench("report", "empty")
    assert done.returncode == 2
    assert "empty holds no result.json" in done.stderr
    assert bench("report").returncode == 2
