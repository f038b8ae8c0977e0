"""The main job, end to end through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from bench import api, stats
from bench.facts.result import Result
from bench.store.results import SCHEMA, read_result, result_schema
from tests.conftest import SMALL, STORY, Bench, run_bench

BRIEF = ("measure.breakdown_steps=0", "measure.warmup_min_steps=2", "measure.warmup_max_steps=2")
Done = tuple[subprocess.CompletedProcess[str], Path]


def test_the_tables_show_what_was_measured_and_four_clusters(small_run: Done) -> None:
    shown = small_run[0].stdout
    for words in ("Measured:", "tokens/s", "Projected:", "oracle_24k_h100", "memphis_100k_h100", "blackwell_300k_b200", "gpt4_25k_a100"):
        assert words in shown
    assert "not told: " in shown


def test_the_run_directory_holds_every_file_whole(small_run: Done) -> None:
    names = {path.name for path in small_run[1].iterdir()}
    assert names == {"config.yaml", "request.yaml", "result.json", "steps.jsonl", "report.md", "report.html", "status.json", "log", ".lock"}
    assert {path.name for path in (small_run[1] / "log").iterdir()} == {"rank0.log", "rank1.log", ".lock"}


def test_the_result_validates_against_the_shipped_schema(small_run: Done) -> None:
    schema = json.loads(SCHEMA.read_text())
    assert schema == result_schema(), "the shipped schema is stale: write bench.store.results.result_schema() to it"
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((small_run[1] / "result.json").read_text()), schema)


def test_the_promised_keys_are_there(small_run: Done) -> None:
    result = json.loads((small_run[1] / "result.json").read_text())
    assert {"schema_version", "config", "environment", "measurement", "projections", "warnings"} <= set(result)
    config = result["config"]
    promised = {
        "model": ("seq_len", "n_heads", "d_model"),
        "train": ("micro_batch_size", "global_batch_size", "precision", "compile"),
        "plan": ("tensor_parallel_size", "pipeline_parallel_size", "context_parallel_size", "expert_parallel_size", "data_parallel_size"),
        "measure": ("steps", "target_ci", "budget_s"),
        "device": ("backend",),
    }
    for group, keys in promised.items():
        assert set(keys) <= set(config[group]), group
    assert yaml.safe_load((small_run[1] / "config.yaml").read_text()) == config
    assert "auto" not in str({group: config[group] for group in ("model", "device", "plan", "train", "measure")})


def test_throughput_is_the_worlds_and_agrees_with_the_step_times(small_result: Result) -> None:
    m = small_result.measurement
    # 2 ranks x 4 sequences x 128 tokens
    assert m.world_size == len(m.ranks) == 2
    assert m.tokens_per_step == 2 * 4 * 128
    seconds = sum(max(windows) for windows in zip(*(r.window_s for r in m.ranks), strict=True))
    assert m.tokens_per_s.value == pytest.approx(60 * m.tokens_per_step / seconds, rel=1e-6)
    skewed = any(w.kind == "skewed_steps" for w in small_result.warnings)
    assert skewed or m.tokens_per_s.value * m.step_s.median == pytest.approx(m.tokens_per_step, rel=0.01)


def test_every_step_of_every_rank_is_kept(small_run: Done, small_result: Result) -> None:
    lines = [json.loads(line) for line in (small_run[1] / "steps.jsonl").read_text().splitlines()]
    for rank in (0, 1):
        own = small_result.measurement.ranks[rank]
        timed = [line["step_s"] for line in lines if line["rank"] == rank and line["phase"] == "timed"]
        assert tuple(timed) == own.step_s
        assert len(timed) == 60
        assert all(step_s > 0 for step_s in timed)


def test_the_model_learns_while_it_is_timed(small_result: Result) -> None:
    m = small_result.measurement
    assert m.invalid == ()
    assert m.loss_last < m.loss_first
    assert m.grad_norm > 0


def test_a_second_run_does_not_overwrite_the_first(small_run: Done) -> None:
    before = (small_run[1] / "result.json").read_bytes()
    done = run_bench("run", *STORY, f"out={small_run[1]}", cwd=small_run[1].parent)
    assert done.returncode == 2
    assert "was begun with measure.steps=60, now None" in done.stderr
    assert (small_run[1] / "result.json").read_bytes() == before


def test_a_library_call_returns_the_typed_result(tmp_path: Path) -> None:
    out = tmp_path / "kept"
    result = api.run(*SMALL, *BRIEF, "measure.steps=20", "device.n_devices=1", f"out={out}")
    assert isinstance(result, Result)
    assert result == read_result(out)
    assert result.measurement.tokens_per_s.n_steps == 20


def test_doubling_the_timed_steps_does_not_move_the_throughput(small_result: Result) -> None:
    """The same run cut at half its steps, so that nothing but their number differs."""
    m = small_result.measurement
    steps = [sum(both) / 2 for both in zip(*(r.step_s for r in m.ranks), strict=True)]
    half, whole = (stats.throughput(steps[:n], m.tokens_per_step, 0.95) for n in (30, 60))
    assert half.low <= whole.high
    assert whole.low <= half.high


def test_ranks_started_by_torchrun_are_joined_not_multiplied(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "bench", "run"]
    command += [*SMALL, *BRIEF, "measure.steps=10", "out=kept"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "kept").measurement.world_size == 2
    assert done.stdout.count("Measured:") == 1


@pytest.mark.slow
def test_gradient_accumulation_counts_every_micro_batch(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", *SMALL, "train.micro_batch_size=2", "train.global_batch_size=12", "measure.steps=10", *BRIEF, "out=kept")
    assert done.returncode == 0, done.stderr
    m = read_result(tmp_path / "kept").measurement
    # 3 passes x 2 sequences x 2 ranks x 128 tokens
    assert (m.batch.n_micro_batches, m.tokens_per_step) == (3, 1536)


@pytest.mark.slow
def test_experts_train_as_well(bench: Bench, tmp_path: Path) -> None:
    small = ("model=grok_tiny", "model.d_ff_expert=256", "model.seq_len=64", "model.vocab_size=512", "train.precision=fp32", *BRIEF)
    done = bench("run", *small, "device=cpu", "train.micro_batch_size=1", "measure.steps=5", "device.n_devices=1", "out=kept")
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "kept").measurement.model.is_moe


@pytest.mark.slow
def test_an_open_model_is_chosen_for_the_budget(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", "device=cpu", "measure.steps=4", "measure.budget_s=1", *BRIEF, "out=kept")
    assert done.returncode == 0, done.stderr
    result = read_result(tmp_path / "kept")
    assert result.config["model"]["name"] == result.measurement.model.name != "auto"
    assert result.survey.trial_flops_per_s
