"""Every `auto` is decided from what is here, and what cannot be is refused."""

from dataclasses import replace

import pytest

from bench.config.compose import compose
from bench.config.resolve import Demand, check_early, models, needs_trial, resolve, resolve_plan, run_spec
from bench.errors import DoesNotFit, UsageError
from bench.facts.hardware import Backend, Precision
from bench.facts.measurement import Survey

GIB = 2**30
SURVEY = Survey(
    backend=Backend.CPU,
    device_name="a CPU",
    world_size=2,
    memory_bytes=8 * GIB,
    threads_per_rank=1,
    trial_flops_per_s={Precision.BF16: 2e11, Precision.FP32: 5e10},
)
# a hundred steps in a minute: 0.6 s of 2e11 FLOP/s in bf16 hold 1.2e11 FLOPs
DEMANDS = {
    name: Demand(flops_per_sequence=flops, fixed_bytes=fixed * GIB, bytes_per_sequence=0.5 * GIB)
    for name, flops, fixed in (
        ("tiny", 1e8, 0.1),
        ("dense_5m", 1e9, 0.2),
        ("dense_20m", 1e10, 0.5),
        ("dense_60m", 1.1e11, 1),
        ("dense_125m", 1.3e11, 2),
        ("dense_350m", 1e12, 6),
        ("dense_1b", 1e13, 16),
        ("dense_3b", 3e13, 50),
        ("llama3_8b", 8e13, 128),
    )
}


def test_the_largest_rung_that_leaves_a_hundred_steps_is_taken() -> None:
    resolved = resolve(compose(["measure.budget_s=60"]), SURVEY, DEMANDS)
    assert run_spec(resolved).model.name == "dense_60m"
    assert resolved.train.precision is Precision.BF16


def test_a_longer_budget_takes_a_larger_rung() -> None:
    assert run_spec(resolve(compose(["measure.budget_s=600"]), SURVEY, DEMANDS)).model.name == "dense_350m"


def test_a_rung_that_does_not_fit_is_not_taken() -> None:
    cramped = replace(SURVEY, memory_bytes=3 * GIB)
    assert run_spec(resolve(compose(["measure.budget_s=600"]), cramped, DEMANDS)).model.name == "dense_125m"


def test_no_room_for_any_rung_is_said() -> None:
    with pytest.raises(DoesNotFit, match="no rung"):
        resolve(compose([]), replace(SURVEY, memory_bytes=GIB // 8), DEMANDS)


def test_the_micro_batch_fills_the_time_of_a_step() -> None:
    # 1e10 FLOPs a sequence at 2e11 FLOP/s: 50 ms; 0.6 s hold 12, the power of two below is 8
    resolved = resolve(compose(["model=dense_20m"]), SURVEY, DEMANDS)
    assert resolved.train.micro_batch_size == 8


def test_an_asked_global_batch_is_divided() -> None:
    resolved = resolve(compose(["model=dense_20m", "train.global_batch_size=12"]), SURVEY, DEMANDS)
    assert (resolved.train.micro_batch_size, resolved.train.global_batch_size) == (2, 12)


def test_nothing_is_tried_where_nothing_is_open() -> None:
    closed = compose(["model=tiny", "train.precision=fp32", "train.micro_batch_size=2"])
    assert not needs_trial(closed)
    assert needs_trial(compose(["model=tiny"]))
    assert [shape.name for shape in models(closed)] == ["tiny"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("plan.tensor_parallel_size=3", "does not divide the 4 devices"),
        ("plan.data_parallel_size=3", "is not the 4 devices"),
    ],
)
def test_a_plan_that_cannot_run_is_refused(override: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve_plan(compose([override]).plan, 4)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["plan=tp", "model.n_kv_heads=1"], "tensor_parallel_size: 2 does not divide model.n_kv_heads 1"),
        (["plan=cp", "model.seq_len=130"], "does not divide model.seq_len 130"),
        (["plan=pp", "model.n_layers=3"], "does not divide model.n_layers 3"),
        (["plan=ep"], "tiny has no experts"),
        (["plan=pp", "train.micro_batch_size=4", "train.global_batch_size=8"], "2 stages need 2 micro-batches, not 1"),
        (["plan=pp_interleaved", "model.n_layers=4", "train.micro_batch_size=1", "train.global_batch_size=6"], "rounds of 2"),
        (["plan=tp", "model.norm=layer"], "LayerNorm"),
        (["plan=hsdp", "plan.sharding=none"], "needs sharding"),
    ],
)
def test_a_model_that_cannot_be_split_so_is_refused_before_ranks_start(overrides: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_early(compose(["model=tiny", *overrides]), 4)


def test_a_pipeline_has_two_micro_batches_per_stage_unless_told() -> None:
    resolved = resolve(compose(["model=tiny", "plan=pp", "train.micro_batch_size=2"]), SURVEY, DEMANDS)
    # 2 stages: 4 micro-batches of 2 sequences on the one data rank
    assert run_spec(resolved).batch.global_batch_size == 8


def test_a_resolved_configuration_resolves_to_itself() -> None:
    once = resolve(compose([]), SURVEY, DEMANDS)
    assert resolve(once, SURVEY, DEMANDS) == once
