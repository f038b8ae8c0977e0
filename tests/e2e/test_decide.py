"""bench decide: the choice of 2024 in one command, one system by name, and what is refused."""

import math
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.codec import encode
from bench.facts.decision import Decision
from bench.store.decisions import read_decision
from tests.conftest import run_bench

CHOICE = "experiment=rent_or_build"


@pytest.fixture(scope="module")
def choice(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float, Path, Decision]:
    """The seed's own decision: what it printed, seconds of a core, where it is kept, and what it is."""
    cwd = tmp_path_factory.mktemp("choice")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run_bench("decide", CHOICE, "out=kept", cwd=cwd, env={"OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # of one core, however busy the machine is
    assert done.returncode == 0, done.stderr
    return done.stdout, took_s, cwd / "kept", read_decision(cwd / "kept")


def numbers(node: Any) -> Iterator[float]:
    if isinstance(node, dict):
        for child in node.values():
            yield from numbers(child)
    elif isinstance(node, list):
        for child in node:
            yield from numbers(child)
    elif isinstance(node, float):
        yield node


@pytest.mark.alone
def test_the_choice_is_made_within_thirty_seconds_of_one_core(choice: tuple[str, float, Path, Decision]) -> None:
    assert choice[1] < 30


@pytest.mark.alone
def test_the_choice_prints_table_crossing_and_three_assumptions(choice: tuple[str, float, Path, Decision]) -> None:
    printed = choice[0]
    for words in ("5 options", "oracle_24k_h100", "memphis_100k_h100", "blackwell_300k_b200", "crossing", "break-even"):
        assert words in printed
    assert "What matters most: 3 of" in printed


@pytest.mark.alone
def test_the_crossing_has_a_date_with_its_interval(choice: tuple[str, float, Path, Decision]) -> None:
    crossing = choice[3].crossing
    assert crossing is not None
    assert crossing.day is not None
    assert 19 < crossing.day.p10 < crossing.day.p50 < crossing.day.p90 < 730
    swings = [s.swing_days for s in choice[3].tornado]
    assert swings == sorted(swings, reverse=True)
    assert swings[2] > 0


@pytest.mark.alone
def test_every_bill_adds_up_to_the_cent(choice: tuple[str, float, Path, Decision]) -> None:
    for option in choice[3].options:
        assert option.bill is not None
        assert option.bill.total_cents == sum(part.cents for part in option.bill.parts)


@pytest.mark.alone
def test_simulation_and_closed_form_agree_within_one_percent(choice: tuple[str, float, Path, Decision]) -> None:
    for option in choice[3].options:
        assert option.simulated_fraction is not None
        assert option.simulated_fraction.p50 == pytest.approx(option.goodput.effective_fraction, rel=0.01)


@pytest.mark.alone
def test_nothing_kept_is_not_a_number(choice: tuple[str, float, Path, Decision]) -> None:
    assert all(math.isfinite(x) for x in numbers(encode(choice[3])))


@pytest.mark.alone
def test_the_report_holds_every_option(choice: tuple[str, float, Path, Decision]) -> None:
    report = (choice[2] / "report.md").read_text()
    for option in choice[3].options:
        assert f"## {option.name} in full" in report


@pytest.mark.alone
def test_the_page_shows_the_race(choice: tuple[str, float, Path, Decision]) -> None:
    page = (choice[2] / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "Work done against the calendar" in page
    assert "http" not in page.replace("http://www.w3.org", "")


@pytest.mark.alone
def test_a_decision_is_never_overwritten(choice: tuple[str, float, Path, Decision], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decide", "scenario=tesla_12k_diverted_h100", f"out={choice[2]}"]) == 2
    assert "never overwritten" in capsys.readouterr().err


def test_one_system_tells_all_of_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decide", "scenario=memphis_100k_h100", f"out={tmp_path / 'kept'}"]) == 0
    printed = capsys.readouterr().out
    for words in ("100,000", "150 MW", "households", "US gallons", "interruptions", "Dell"):
        assert words in printed


OPTION = "scenario.options.tesla_12k_diverted_h100"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (f"{OPTION}.purchase.server_usd.value=-1", ["server_usd", "-1", "above 0"]),
        (f"{OPTION}.groups.all.cluster.n_nodes=0", ["n_nodes 0", "at least 1"]),
        (f"{OPTION}.site.power_cap_w={{value:-5,provenance:assumed,source:test}}", ["power_cap_w", "-5", "above 0"]),
        (f"{OPTION}.start_day.p10=-3", ["-3", "ascend from 0"]),
        (f"{OPTION}.recovery.storage_bytes_per_s.value=0", ["storage_bytes_per_s 0", "above 0"]),
        (f"{OPTION}.site.pue.value=0.5", ["pue 0.5", "at least 1"]),
        ("scenario.work_flops.value=0", ["work_flops 0", "above 0"]),
        ("price.rental_usd_per_device_hour.H100-SXM.value=-2", ["H100-SXM -2", "above 0"]),
        ("scenario.first=nobody", ["first and second"]),
        ("scenario.sedd=1", ["sedd", "seed"]),
    ],
)
def test_bad_assumptions_are_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], override: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["decide", "scenario=tesla_12k_diverted_h100", override]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0]


def test_no_scenario_is_refused_with_a_proposal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decide"]) == 2
    assert "experiment=rent_or_build" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"{OPTION}.recovery.storage_bytes_per_s.value=1.0e+6", f"{OPTION}.recovery.kind=storage"], "failures come every"),
        ([f"{OPTION}.site.power_cap_w={{value:1.0e+6,provenance:assumed,source:test}}"], "devices draw idle"),
    ],
)
def test_what_cannot_work_is_stated_and_never_nan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], overrides: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["decide", "scenario=tesla_12k_diverted_h100", "out=kept", *overrides]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "infeasible" in printed
    kept = read_decision(tmp_path / "kept")
    assert words in " ".join(kept.options[0].infeasible)
    assert kept.options[0].bill is None
    assert all(math.isfinite(x) for x in numbers(encode(kept)))


SEEDS = (
    *("oracle_24k_h100", "memphis_112k_h100", "blackwell_300k_b200", "gpt4_25k_a100", "tesla_85k_h100", "tesla_12k_diverted_h100"),
    "oracle_10bn_rental",
)


def decided(tmp_path: Path, name: str) -> Decision:
    assert main(["decide", f"scenario={name}", f"out={tmp_path / name}"]) == 0
    return read_decision(tmp_path / name)


def test_unlike_devices_train_in_one_job(tmp_path: Path) -> None:
    option = decided(tmp_path, "colossus_200k_mixed").options[0]
    assert option.device_names == ("H100-SXM", "H200-SXM")
    assert [p.n_devices for p in option.predictions] == [150_000, 50_000]
    assert option.tokens_per_s.p50 == pytest.approx(sum(p.tokens_per_s.p50 for p in option.predictions), rel=0.05)


@pytest.mark.slow
def test_rare_exchanges_between_sites_beat_those_of_every_step(tmp_path: Path) -> None:
    rare, every = (decided(tmp_path, name).options[0] for name in ("blackwell_300k_b200", "blackwell_300k_b200_synchronous"))
    assert rare.goodput.n_nodes == 12_500  # sites fail apart
    assert every.goodput.n_nodes == 37_500
    assert rare.effective_fraction.p50 > every.effective_fraction.p50
    assert "an exchange between 3 sites" in rare.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
def test_every_system_of_the_seeds_runs_by_name(tmp_path: Path, name: str) -> None:
    option = decided(tmp_path, name).options[0]
    assert option.name == name
    assert not option.infeasible
    assert option.bill is not None


@pytest.mark.slow
def test_every_other_system_runs_by_name(tmp_path: Path) -> None:
    names = {path.stem for path in (Path(__file__).parents[2] / "conf" / "option").glob("*.yaml")} - set(SEEDS)
    for name in sorted(names):
        assert all(math.isfinite(x) for x in numbers(encode(decided(tmp_path, name))))


def test_a_run_on_another_device_is_told_and_changes_no_power(small_run: tuple[Any, Path], tmp_path: Path) -> None:
    name = "tesla_12k_diverted_h100"
    plain = decided(tmp_path, name)
    assert main(["decide", f"scenario={name}", f"result={small_run[1]}", f"out={tmp_path / 'told'}"]) == 0
    told = read_decision(tmp_path / "told")
    assert any("the software's step is valid" in text for text in told.told)
    assert told.options[0].power == plain.options[0].power
