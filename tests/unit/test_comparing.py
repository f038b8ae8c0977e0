"""Comparing kept runs: what is refused, what differed, what trips the gate."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.cli import main
from bench.comparing import compare, gate_fraction
from bench.errors import UsageError
from bench.facts.breakdown import DeviceTelemetry, Telemetry
from bench.facts.result import Result
from bench.rerunning import overlaid
from bench.store.results import write_partial
from tests.kept_runs import ENVIRONMENT, kept, launch_of, result_of, steps_of


def run_of(tokens_per_s: float, n_launches: int = 1, seed: int = 1) -> Result:
    rng = np.random.default_rng(seed)
    return result_of(*(launch_of(steps_of(rng, tokens_per_s, 30)) for _ in range(n_launches)))


@pytest.fixture
def first(tmp_path: Path) -> str:
    return str(kept(tmp_path / "first", run_of(1000)))


def other(tmp_path: Path, result: Result, name: str = "other") -> str:
    return str(kept(tmp_path / name, result))


def told(hz: float) -> Telemetry:
    device = DeviceTelemetry(
        rank=0, host="here", source="NVML", n_samples=1, power_w=None, peak_power_w=None, energy_j=None, clock_hz=hz, lowest_clock_hz=hz,
        peak_temperature_c=None, throttled_fraction=None, throttle_reasons=(), n_foreign_processes=None,
    )  # fmt: skip
    return Telemetry(devices=(device,), power_w=None, energy_j=None, energy_j_per_token=None)


def test_a_run_ten_percent_slower_trips_a_gate_of_three_and_exits_5(first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = other(tmp_path, run_of(900, seed=2))
    assert main(["compare", first, slow, "gate=-3%"]) == 5
    shown = capsys.readouterr()
    assert "slower" in shown.out
    assert "tripped" in shown.out
    assert "gate" in shown.err
    assert main(["compare", first, slow]) == 0


def test_a_gate_wider_than_the_loss_lets_it_pass(first: str, tmp_path: Path) -> None:
    assert main(["compare", first, other(tmp_path, run_of(900, seed=2)), "gate=-20%"]) == 0
    assert main(["compare", first, other(tmp_path, run_of(1100, seed=2), "faster"), "gate=-3%"]) == 0


def test_an_assumed_spread_is_said_to_be_assumed_and_a_measured_one_measured(
    first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compare", first, other(tmp_path, run_of(1001, seed=3))])
    assert "0.50 % (one standard deviation), assumed, not measured" in (alone := " ".join(capsys.readouterr().out.split()))
    assert "measure.launches=3" in alone
    several = [other(tmp_path, run_of(1000, 3, seed), f"several{seed}") for seed in (4, 5)]
    main(["compare", *several])
    assert "measured: the spread of 3 and 3 launches" in " ".join(capsys.readouterr().out.split())


def test_a_comparison_that_would_miss_what_is_sought_says_how_often_and_what_would_find_it(
    first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    near = other(tmp_path, run_of(1001, seed=3))
    main(["compare", first, near, "compare.noise_floor.value=0.007"])
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(r"A change of 3 % would be missed in [1-5]\d of 100 such comparisons; measure.launches=\d on both sides", told)
    main(["compare", first, near, "gate=-1%"])
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(r"warning: a loss of 1 % would be missed in [5-9]\d of 100", told)
    main(["compare", first, near, "gate=-10%"])
    assert "missed" not in capsys.readouterr().out


def test_the_noise_floor_can_be_given(first: str, tmp_path: Path) -> None:
    near = other(tmp_path, run_of(970, seed=6))
    floors = [compare(first, near, f"compare.noise_floor.value={v}")[0].contrast.noise_floor_fraction for v in (0.0, 0.05)]
    assert floors[0] < 0.02
    assert floors[1] > 0.15


def test_every_further_run_is_compared_with_the_first(first: str, tmp_path: Path) -> None:
    names = [other(tmp_path, run_of(1000, seed=s), f"other{s}") for s in (7, 8)]
    assert [(c.first, c.second) for c in compare(first, *names)] == [(first, names[0]), (first, names[1])]


def test_what_differed_is_named_by_its_path(first: str, tmp_path: Path) -> None:
    before = run_of(1000)
    config = before.config | {"train": before.config["train"] | {"compile": True}, "cluster": "another", "out": "elsewhere"}
    environment = replace(ENVIRONMENT, host="there", packages={"torch": "2.12.0"}, driver=None, variables={"TORCHELASTIC_RUN_ID": "1"})
    found = compare(first, other(tmp_path, replace(before, config=config, environment=environment)))[0].differences
    assert {d.path for d in found} == {"train.compile", "environment.host", "environment.packages.torch", "environment.driver"}
    assert next((d.first, d.second) for d in found if d.path == "environment.packages.torch") == ("2.13.0", "2.12.0")


def test_clocks_that_differ_by_more_than_a_percent_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = run_of(1000)
    runs = [
        other(tmp_path, replace(base, measurement=replace(base.measurement, telemetry=told(hz))), f"at{hz:.0f}")
        for hz in (2.0e9, 2.01e9, 1.5e9)
    ]
    assert main(["compare", *runs]) == 0
    assert capsys.readouterr().out.count("telemetry.clock_hz") == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"world_size": 2}, ["another number of devices", "2, not 1"]),
        ({"device_name": "Round 2"}, ["other devices", "Round 2"]),
        ({"invalid": ("nothing was learnt",)}, ["no valid measurement", "nothing was learnt"]),
    ],
)
def test_unlike_runs_are_refused_in_one_line_and_compared_by_force(
    first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], words: list[str]
) -> None:
    base = run_of(1000)
    odd = other(tmp_path, replace(base, measurement=replace(base.measurement, **change)))  # type: ignore[arg-type]
    assert main(["compare", first, odd]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    for word in (*words, "--force"):
        assert word in lines[0]
    assert main(["compare", first, odd, "--force"]) == 0
    assert "by force" in capsys.readouterr().out


def test_another_model_is_refused_by_the_field_that_differs_and_another_name_is_none(first: str, tmp_path: Path) -> None:
    base = run_of(1000)
    renamed, wider = (
        replace(base, measurement=replace(base.measurement, model=replace(base.measurement.model, **change)))
        for change in ({"name": "renamed"}, {"d_ff": 4096})
    )
    assert compare(first, other(tmp_path, renamed, "renamed"))[0].unlike == ()
    with pytest.raises(UsageError, match="d_ff 4096, not 2730"):
        compare(first, other(tmp_path, wider, "wider"))


def test_a_run_that_was_cut_short_is_refused(first: str, tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    write_partial(tmp_path / "cut", run_of(1000))
    with pytest.raises(UsageError, match="cut short"):
        compare(first, str(tmp_path / "cut"))
    assert compare(first, str(tmp_path / "cut"), force=True)[0].unlike


def test_a_sweep_of_several_points_is_to_be_named_more_closely(first: str, tmp_path: Path) -> None:
    for name in ("000-ddp", "001-fsdp"):
        kept(tmp_path / "swept" / name, run_of(1000))
    with pytest.raises(UsageError, match=r"holds 2 runs; name one of them: .*000-ddp"):
        compare(first, str(tmp_path / "swept"))
    assert compare(first, str(tmp_path / "swept" / "000-ddp"))


@pytest.mark.parametrize(("gate", "fraction"), [("-3%", -0.03), ("-0.03", -0.03), (-0.03, -0.03), (None, None)])
def test_a_gate_is_a_percentage_or_a_fraction(gate: str | float | None, fraction: float | None) -> None:
    assert gate_fraction(gate) == (None if fraction is None else pytest.approx(fraction))


@pytest.mark.parametrize("gate", ["3%", "0", "-100%", "three", -3])
def test_a_gate_that_is_no_loss_is_refused(gate: str | float) -> None:
    with pytest.raises(UsageError, match=r"gate: .* given; .*gate=-3%"):
        gate_fraction(gate)


def test_one_run_alone_cannot_be_compared(first: str) -> None:
    with pytest.raises(UsageError, match="two or more"):
        compare(first)


def test_a_missing_run_is_named(first: str) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        compare(first, "nowhere")


def test_a_kept_configuration_lies_over_the_defaults_of_today() -> None:
    today = {"train": {"seed": 0, "new": 1}, "model": {"name": "tiny", "d_ff": 1}, "added": None}
    then = {"train": {"seed": 5}, "model": {"name": "old"}}
    assert overlaid(today, then) == {"train": {"seed": 5, "new": 1}, "model": {"name": "old"}, "added": None}
