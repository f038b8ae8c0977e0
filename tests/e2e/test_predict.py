"""The verbs that predict, through the command line."""

import csv
import io
import json
from pathlib import Path

import pytest

from bench.backtest import tasks
from bench.cli import main
from bench.codec import decode_text
from bench.facts.published import Protocol
from bench.store.forecasts import Forecast, Plans
from bench.store.published import PREDICTION_COLUMNS, shipped_rows

OBSERVED = ("step_time_s", "tokens_per_s_total", "tokens_per_s_per_gpu", "model_tflops_per_gpu", "hw_tflops_per_gpu", "mfu")
OBSERVED += ("peak_allocated_gb", "peak_reserved_gb", "notes")


def written(path: Path, rows: list[dict[str, str]]) -> Path:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(out.getvalue())
    return path


@pytest.fixture(scope="module")
def stack() -> list[dict[str, str]]:
    """Rows of one stack, in one group: a model on 8 to 1,024 devices."""
    return [{"group": "g", **row} for row in shipped_rows() if row["stack"].startswith("InternLM/InternEvo") and row["n_gpus"]]


def predicted(path: Path) -> dict[str, dict[str, str]]:
    with path.open() as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_a_target_is_predicted_on_its_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["predict", "target=llama3_70b", "cluster=nvidia_eos", f"out={out}"]) == 0
    shown = capsys.readouterr().out
    assert "where the uncertainty comes from" in shown
    assert "measure next" in shown
    [projection] = decode_text(Forecast, (out / "prediction.json").read_bytes()).projections
    assert projection.step_s.p10 < projection.step_s.p50 < projection.step_s.p90
    weak, strong = decode_text(Forecast, (out / "prediction.json").read_bytes()).scaling
    assert weak.points[-1].n_devices == strong.points[-1].n_devices == projection.n_devices
    assert "weak scaling" in shown
    assert sum(part.time_s for part in projection.parts) == pytest.approx(projection.step_s.p50)
    assert sum(cause.share for cause in projection.uncertainty) == pytest.approx(1)
    assert all(run.after_fraction <= run.before_fraction for run in projection.next_runs)


def test_plans_are_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["plan", "target=llama3_70b", "cluster=nvidia_eos", f"out={out}"]) == 0
    assert "plans considered" in capsys.readouterr().out
    [search] = decode_text(Plans, (out / "plans.json").read_bytes()).searches
    assert [one.step_s / one.batch.global_batch_size for one in search.front] == sorted(
        one.step_s / one.batch.global_batch_size for one in search.front
    )
    assert [one.need_bytes for one in search.front] == sorted((one.need_bytes for one in search.front), reverse=True)
    assert all(one.why for one in search.runners_up)


def test_a_table_is_predicted_as_the_scorer_asks(tmp_path: Path, stack: list[dict[str, str]]) -> None:
    measured = [row for row in stack if row["n_gpus"] == "8"]
    targets = [{key: value for key, value in row.items() if key not in OBSERVED} for row in stack if row["n_gpus"] != "8"]
    rows, calibration, out = written(tmp_path / "t.csv", targets), written(tmp_path / "c.csv", measured), tmp_path / "p.csv"
    assert main(["predict", f"rows={rows}", f"calibration={calibration}", f"out={out}"]) == 0
    found = predicted(out)
    assert list(next(iter(found.values()))) == list(PREDICTION_COLUMNS)
    assert list(found) == [row["id"] for row in targets]
    for row in found.values():
        assert row["error"] == ""
        low, middle, high = (float(row[f"tokens_per_s_per_gpu{end}"]) for end in ("_p10", "", "_p90"))
        assert 0 < low < middle < high
        assert float(row["step_time_s"]) > 0


def test_what_a_target_reached_changes_nothing(tmp_path: Path, stack: list[dict[str, str]]) -> None:
    measured, targets = [row for row in stack if row["n_gpus"] == "8"], [row for row in stack if row["n_gpus"] != "8"]
    calibration = written(tmp_path / "c.csv", measured)
    doubled = [{**row, **{key: str(2 * float(row[key])) for key in OBSERVED[:6] if row[key]}} for row in targets]
    for name, rows in (("plain", targets), ("doubled", doubled)):
        assert (
            main(
                [
                    "predict",
                    f"rows={written(tmp_path / f'{name}.csv', rows)}",
                    f"calibration={calibration}",
                    f"out={tmp_path / f'{name}.out'}",
                ]
            )
            == 0
        )
    assert (tmp_path / "plain.out").read_text() == (tmp_path / "doubled.out").read_text()


def test_rows_of_another_group_tell_nothing(tmp_path: Path, stack: list[dict[str, str]]) -> None:
    measured = [{**row, "group": "other"} for row in stack if row["n_gpus"] == "8"]
    rows = written(tmp_path / "t.csv", [row for row in stack if row["n_gpus"] != "8"])
    foreign = written(tmp_path / "c.csv", measured)
    assert main(["predict", f"rows={rows}", f"out={tmp_path / 'cold'}"]) == 0
    assert main(["predict", f"rows={rows}", f"calibration={foreign}", f"out={tmp_path / 'foreign'}"]) == 0
    assert (tmp_path / "cold").read_text() == (tmp_path / "foreign").read_text()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"gpu": "abacus"}, "gpu: 'abacus' is not among"),
        ({"n_gpus": ""}, "n_gpus: is empty"),
        ({"n_layers": "many"}, "n_layers: 'many' given; a number or an empty cell"),
        ({"seq_len": "inf"}, "seq_len: inf given; a finite number"),
        ({"tp": "-2"}, "tp: -2 given; a finite number that is not negative"),
        ({"gpu": "a100-80", "precision": "fp8"}, "has no fp8 rate"),
        ({"gpu": "h100-sxm", "precision": "nvfp4"}, "precision: nvfp4 given; H100-SXM has no fp4 rate"),
        ({"precision": "int8"}, "precision: int8 given; it must be one of bf16, fp16, fp8, fp4, or have it in its name"),
    ],
)
def test_a_row_that_cannot_be_expressed_says_why(tmp_path: Path, stack: list[dict[str, str]], change: dict[str, str], error: str) -> None:
    rows, out = written(tmp_path / "t.csv", [{**stack[0], **change}, stack[1]]), tmp_path / "p.csv"
    assert main(["predict", f"rows={rows}", f"out={out}"]) == 0
    with out.open() as file:
        bad, good = list(csv.DictReader(file))
    assert error in bad["error"]
    assert bad["tokens_per_s_per_gpu"] == ""
    assert good["error"] == ""


@pytest.mark.parametrize("precision", ["fp8", "fp4"])
def test_a_target_in_narrow_numbers_is_faster_on_devices_that_have_them_and_refused_elsewhere(
    tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, device = "cluster=blackwell_300k_b200", f"target.precision={precision}"
    assert main(["predict", cluster, f"out={tmp_path / 'half'}", "--json"]) == 0
    (half,) = json.loads(capsys.readouterr().out)
    assert main(["predict", cluster, device, f"out={tmp_path / 'narrow'}", "--json"]) == 0
    (narrow,) = json.loads(capsys.readouterr().out)
    assert (half["precision"], narrow["precision"]) == ("bf16", precision)
    assert 1.05 < narrow["tokens_per_s"]["p50"] / half["tokens_per_s"]["p50"] < 4
    assert narrow["mfu_causal"]["p50"] < half["mfu_causal"]["p50"]  # of a higher peak
    assert main(["predict", "cluster=gpt4_25k_a100", device, f"out={tmp_path / 'none'}"]) == 4
    assert f"grok1_314b in {precision} does not run on A100-SXM-80GB" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_empty_cells_are_filled_with_what_could_have_run(tmp_path: Path, stack: list[dict[str, str]]) -> None:
    empty = dict.fromkeys(("tp", "pp", "vpp", "cp", "ep", "dp", "micro_batch", "global_batch", "recompute", "sharding"), "")
    rows = written(tmp_path / "t.csv", [stack[0], {**stack[0], **empty, "id": "bare"}])
    assert main(["predict", f"rows={rows}", f"out={tmp_path / 'p.csv'}"]) == 0
    full, bare = predicted(tmp_path / "p.csv").values()

    def width(row: dict[str, str]) -> float:
        return float(row["tokens_per_s_per_gpu_p90"]) / float(row["tokens_per_s_per_gpu_p10"])

    assert bare["error"] == ""
    assert width(bare) > width(full)


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, "cannot be read"), (b"\xff\xfe\x00", "cannot be read"), (b"a,b\n1,2\n", "no column 'id'")],
)
def test_a_table_that_is_none_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, error: str
) -> None:
    file = tmp_path / "t.csv"
    if content is not None:
        file.write_bytes(content)
    assert main(["predict", f"rows={file}", f"out={tmp_path / 'p.csv'}"]) == 2
    told = capsys.readouterr().err.strip()
    assert error in told
    assert "\n" not in told
    assert not (tmp_path / "p.csv").exists()


def test_protocols_split_the_shipped_rows_as_the_page_says() -> None:
    from bench.backtest import published_rows

    for protocol in Protocol:
        for task in tasks(published_rows(), protocol):
            assert not {row.setup.id for row in task.measured} & {row.setup.id for row in task.targets}
            assert protocol is not Protocol.COLD or not task.measured


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_priors_are_fitted_through_the_command_line(tmp_path: Path) -> None:
    assert main(["fit-priors", f"out={tmp_path / 'prior.yaml'}"]) == 0
    assert "kernel_fraction" in (tmp_path / "prior.yaml").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_score_is_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backtest", f"out={tmp_path / 'page.md'}"]) == 0
    assert "naive rule" in capsys.readouterr().out
    assert (tmp_path / "page.md").read_text().startswith("# How wrong the prediction is")


def test_json_of_a_prediction_is_plain(tmp_path: Path) -> None:
    assert main(["predict", "target=llama3_405b", "cluster=nvidia_eos", f"out={tmp_path / 'run'}"]) == 0
    assert json.loads((tmp_path / "run" / "prediction.json").read_text())["projections"][0]["target"] == "llama3_405b"
