"""The page of a decision in a real browser: it shows who is done first, folds what is long, and opens all of it on paper."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_bench
from tests.e2e.conftest import needs_chromium
from tests.e2e.test_report import Opened, colours

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the choice of 2024."""
    cwd = tmp_path_factory.mktemp("decided")
    done = run_bench("decide", "experiment=rent_or_build", "out=kept", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "kept" / "report.html"


def test_charts_are_drawn_and_the_page_asks_for_nothing(browser: Any, decided: Path) -> None:
    opened = Opened(browser, decided)
    charts = opened.page.locator("svg.chart")
    assert [colours(charts.nth(i).screenshot()) > 40 for i in range(charts.count())] == [True, True]
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith(("file://", "data:"))] == []


def test_the_race_reaches_to_twice_the_work_and_no_further(browser: Any, decided: Path) -> None:
    """1e26 FLOPs in units of 1e24: the axis that went to 2,000 hid who is first at 100."""
    page = Opened(browser, decided).page
    with page.expect_download() as download:
        page.locator("#chart-race a[download]").click()
    rows = [line.split(",") for line in Path(download.value.path()).read_text().splitlines()[1:]]
    assert max(float(row[4] or row[2]) for row in rows) <= 200
    assert {row[2] for row in rows if row[0] == "the work"} == {"100.0"}


def test_what_is_long_is_folded_on_the_screen_and_open_on_paper(browser: Any, decided: Path) -> None:
    page = Opened(browser, decided).page
    assert page.evaluate("document.documentElement.scrollHeight") < 8000
    folded = page.locator("details")
    assert folded.count() == 10
    assert page.locator("details[open]").count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details[open]").count() == 10


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light")])
def test_no_serious_fault_bars_anyone_from_the_decision(browser: Any, decided: Path, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    opened = Opened(browser, decided, width, scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.run(opened.page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
