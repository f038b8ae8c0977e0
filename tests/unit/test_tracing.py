"""Which plan a trace is of, and what is said where there is none."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.config.compose import compose
from bench.errors import UsageError
from bench.facts.plan import Sharding
from bench.facts.trace import StepTrace
from bench.report.trace_tables import trace_table
from bench.store.profiles import read_trace, write_trace
from bench.tracing import traced_plan, traced_step

SMALL = ("target.model.d_model=96", "target.model.head_dim=2", "target.model.d_ff_expert=64", "target.model.seq_len=64")

EIGHT_SHARED = ("plan.expert_parallel_size=8", "plan.sharding=zero3", "plan.data_parallel_replicate_size=4")


@pytest.fixture(scope="module")
def traced() -> StepTrace:
    config = compose([*SMALL, "plan=ep", "plan.sharding=zero3", "n_devices=48", "train.micro_batch_size=2"])
    return traced_step(config, traced_plan(config))


def test_data_ranks_are_what_the_other_axes_leave() -> None:
    plan = traced_plan(compose(["plan=fsdp_tp", "plan.tensor_parallel_size=8", "n_devices=100000"]))
    assert (plan.data_parallel_size, plan.tensor_parallel_size, plan.sharding) == (12_500, 8, Sharding.ZERO3)


def test_without_a_number_the_devices_are_those_of_the_cluster() -> None:
    assert traced_plan(compose(["plan=fsdp", "cluster=memphis_100k_h100"])).world_size == 100_000


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["plan=fsdp"], r"n_devices: null, and 4 clusters .*n_devices=8, or choose one"),
        (["plan=fsdp", "n_devices=0"], "n_devices 0 must be at least 1"),
        (["n_devices=8"], "plan.sharding: none given; .*DistributedDataParallel.* use plan=zero2"),
        (["plan=zero1", "n_devices=8"], "plan.sharding: zero1 given; .* use plan=zero2"),
        (["plan=pp", "n_devices=8"], "plan.pipeline_parallel_size: 2 given; .* use 1, or plan=fsdp_tp"),
        (["plan=tp", "n_devices=9"], "tensor_parallel_size 2 = 2 does not divide the 9 devices"),
        (["plan=tp", "plan.tensor_parallel_size=16", "n_devices=32"], "16 does not divide model.n_kv_heads 8; use 8"),
        (["plan=tp", "target=gpt3_175b", "n_devices=8"], "does not divide model.vocab_size 50257; use 1 or 29"),
        (["plan=ep", *EIGHT_SHARED, "n_devices=16"], "data_parallel_replicate_size: 4 does not divide the 2 ranks .*; use 2"),
        (["plan=ep", "target=llama3_70b", "n_devices=8"], "has no experts"),
        (["plan=fsdp", "n_devices=8", "train.precision=fp32"], "train.precision: fp32 given; a trace is in bf16"),
        (["plan=fsdp", "n_devices=8", "train.global_batch_size=16"], "train.global_batch_size: 16 given; a trace is of one pass"),
    ],
)
def test_what_cannot_be_traced_is_refused_in_one_line(overrides: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        traced_plan(compose(overrides))
    assert "\n" not in str(error.value)


def test_the_table_has_every_collective_and_says_that_the_formulas_agree(traced: StepTrace) -> None:
    table = trace_table(traced)
    assert len(table.rows) == len(traced.counts.collectives) == len(traced.formula)
    assert any(row[:4] == ("forward", "all to all", "expert", "2") for row in table.rows)
    assert "The formulas (bench/cost/traffic.py) give the same collectives, calls and bytes." in table.notes


def test_the_table_says_where_the_formulas_do_not_agree(traced: StepTrace) -> None:
    other = replace(traced, formula=(replace(traced.formula[0], n_calls=7), *traced.formula[1:]))
    assert "not valid: the formulas (bench/cost/traffic.py) lack 1 of these rows and have 1 others" in trace_table(other).notes


def test_the_table_warns_of_padding(traced: StepTrace) -> None:
    # four experts of eight here become 24 rows for 24 ranks, six times the bytes; the rows of the vocabulary divide
    assert 2 < traced.padding_factor < 6
    assert any(note.startswith("warning: ") and "plan.data_parallel_replicate_size" in note for note in trace_table(traced).notes)


def test_a_trace_survives_its_file(traced: StepTrace, tmp_path: Path) -> None:
    write_trace(tmp_path, traced)
    assert read_trace(tmp_path) == traced
