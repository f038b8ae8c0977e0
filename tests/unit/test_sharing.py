"""Archives and tables of kept runs."""

import csv
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.cli import main
from bench.codec import decode_text
from bench.cost.flops import Convention, flops_per_token, recomputed_flops_per_token
from bench.errors import UsageError
from bench.facts.hardware import Precision
from bench.facts.plan import ParallelPlan, Recompute
from bench.facts.result import Result
from bench.sharing import bundle, rows_below, table_text, throughput_row
from tests.kept_runs import ENVIRONMENT, kept, launch_of, result_of, steps_of
from tests.round_numbers import TINY


def run() -> Result:
    return result_of(launch_of(steps_of(np.random.default_rng(1), 1000, 20)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    secret = replace(ENVIRONMENT, variables={"NCCL_X": "http://user:hunter2hunter2@proxy/x"})
    path = kept(tmp_path / "one", replace(run(), environment=secret))
    (path / "log").mkdir()
    (path / "log" / "rank0.log").write_text("HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz0123\nall well\n")
    (path / ".lock").write_text("process 1 on here")
    (path / ".result.json.7.tmp").write_text("torn")
    (path / "binary").write_bytes(b"\xff\x00\xfe")
    (path / "link").symlink_to("/etc/passwd")
    return path


def contents(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def test_a_bundle_holds_the_run_without_locks_torn_files_and_links(folder: Path, tmp_path: Path) -> None:
    file, n_files = bundle(str(folder), f"out={tmp_path}/run.tar.gz")
    assert set(contents(file)) == {"one/binary", "one/log/rank0.log", "one/result.json"}
    assert n_files == 3
    assert contents(file)["one/binary"] == b"\xff\x00\xfe"


def test_secrets_are_masked_and_the_result_still_reads(folder: Path, tmp_path: Path) -> None:
    file, _ = bundle(str(folder), f"out={tmp_path}/run.tar.gz")
    inside = contents(file)
    assert b"hf_abc" not in inside["one/log/rank0.log"]
    assert b"all well" in inside["one/log/rank0.log"]
    assert b"hunter2" not in inside["one/result.json"]
    assert decode_text(Result, inside["one/result.json"]).measurement == run().measurement


def test_two_bundles_of_one_run_are_equal_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    first, _ = bundle(str(folder), f"out={tmp_path}/a.tar.gz")
    (folder / "result.json").touch()
    second, _ = bundle(str(folder), f"out={tmp_path}/b.tar.gz")
    assert first.read_bytes() == second.read_bytes()


def test_a_bundle_is_never_overwritten(folder: Path, tmp_path: Path) -> None:
    bundle(str(folder), f"out={tmp_path}/a.tar.gz")
    with pytest.raises(UsageError, match="not overwritten"):
        bundle(str(folder), f"out={tmp_path}/a.tar.gz")


@pytest.mark.parametrize(("arguments", "word"), [((), "takes one"), (("nowhere",), "no directory")])
def test_what_cannot_be_bundled_is_named(arguments: tuple[str, ...], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        bundle(*arguments)


def test_a_bundle_inside_its_own_run_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="outside"):
        bundle(str(folder), f"out={folder}/a.tar.gz")


def test_the_table_walks_folders_and_names_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept(tmp_path / "swept" / "000", run())
    kept(tmp_path / "swept" / "001", run())
    broken = replace(run(), measurement=replace(run().measurement, invalid=("nothing was learnt",)))
    kept(tmp_path / "swept" / "002", broken)
    assert main(["table", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("| small | 1024 | 1 | Round 1 | n/a | n/a |") == 2
    assert "nothing was learnt" in shown.err


def test_csv_has_the_columns_of_published_tables(tmp_path: Path) -> None:
    kept(tmp_path / "one", run())
    row = next(csv.DictReader(io.StringIO(table_text(rows_below(str(tmp_path))[0], "format=csv"))))
    rate = run().measurement.tokens_per_s
    assert row["Throughput (T/s)"] == f"{rate.value:.0f}"
    assert row["Interval (T/s)"] == f"{rate.low:.0f} to {rate.high:.0f}"
    assert (row["SeqLen (T)"], row["# Devices"], row["Date"], row["Precision"]) == ("1024", "1", "2026-11-25", "bf16")


def test_recomputation_adds_a_forward_pass_of_the_layers() -> None:
    # a forward pass is a third of a step; the head of 2 * 10 * 4 = 80 FLOPs is not computed again
    step = flops_per_token(TINY, Convention.FULL)
    assert recomputed_flops_per_token(TINY, Recompute.FULL, Convention.FULL) == pytest.approx(step / 3 - 80)
    # 4 layers of 4 * 16 * 2 * 2 = 256
    assert recomputed_flops_per_token(TINY, Recompute.SELECTIVE, Convention.FULL) == 1024
    assert recomputed_flops_per_token(TINY, Recompute.NONE, Convention.FULL) == 0


def test_hfu_is_mfu_where_nothing_is_computed_again_and_more_where_it_is() -> None:
    known = replace(run().measurement, device_name="NVIDIA H100 80GB HBM3", precision=Precision.BF16)
    plain = throughput_row(replace(run(), measurement=known), "x")
    again = throughput_row(
        replace(run(), measurement=replace(known, plan=ParallelPlan(data_parallel_size=1, recompute=Recompute.FULL))), "x"
    )
    assert plain.mfu_fraction == plain.hfu_fraction == again.mfu_fraction
    assert plain.mfu_fraction is not None
    assert again.hfu_fraction is not None
    assert 1.25 < again.hfu_fraction / plain.mfu_fraction < 4 / 3


def test_a_table_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no result\.json"):
        rows_below(str(tmp_path))
    with pytest.raises(UsageError, match="not there"):
        rows_below(str(tmp_path / "nowhere"))
