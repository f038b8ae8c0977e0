"""A plan is what it says: four ranks under it train to the same loss and gradient as one process with the whole batch."""

from pathlib import Path

import pytest

from bench.facts.measurement import Measurement
from bench.store.results import read_result
from tests.conftest import run_bench

# Six steps in all: one looked at, two of warm-up, two timed, one looked at.
BATCH = ("device=cpu", "train.precision=fp32", "train.global_batch_size=8", "train.learning_rate=0.001", "measure.steps=2")
STEPS = ("measure.warmup_min_steps=2", "measure.warmup_max_steps=2")
DENSE = ("model=tiny", "model.n_layers=4", "model.tied_embedding=true")
# room for every token that an expert may be given: a rank drops by its own tokens, one process by all
MOE = ("model=grok_tiny", "model.n_layers=2", "model.d_model=96", "model.d_ff_expert=64", "model.seq_len=64", "model.vocab_size=512")
MOE += ("model.n_heads=2", "model.n_kv_heads=2", "model.head_dim=48", "model.expert_capacity_factor=4")

LOSS_TOLERANCE = 2e-5  # relative; sums in another order, in fp32
NORM_TOLERANCE = 2e-4


def measured(tmp_path: Path, *overrides: str) -> Measurement:
    done = run_bench("run", *BATCH, *STEPS, *overrides, f"out={tmp_path / 'kept'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return read_result(tmp_path / "kept").measurement


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    return measured(tmp_path_factory.mktemp("dense"), *DENSE, "device.n_devices=1", "train.micro_batch_size=8")


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    return measured(tmp_path_factory.mktemp("moe"), *MOE, "device.n_devices=1", "train.micro_batch_size=8")


def assert_equal_training(plan: Measurement, whole: Measurement) -> None:
    assert plan.world_size == 4
    assert plan.tokens_per_step == whole.tokens_per_step
    assert plan.n_parameters == whole.n_parameters
    assert plan.loss_first == pytest.approx(whole.loss_first, rel=LOSS_TOLERANCE)
    assert plan.loss_last == pytest.approx(whole.loss_last, rel=LOSS_TOLERANCE)
    assert plan.grad_norm == pytest.approx(whole.grad_norm, rel=NORM_TOLERANCE)


@pytest.mark.parametrize(
    ("plan", "micro_batch"),
    [
        ("ddp", 1),
        ("zero1", 2),
        ("zero2", 2),
        ("fsdp", 2),
        ("hsdp", 1),
        ("tp", 4),
        ("pp", 1),
        ("pp_interleaved", 1),
        ("cp", 4),
        ("fsdp_tp", 2),
        ("pp_tp", 2),
    ],
)
def test_a_dense_plan_trains_as_one_process_does(tmp_path: Path, dense: Measurement, plan: str, micro_batch: int) -> None:
    m = measured(tmp_path, *DENSE, f"plan={plan}", "device.n_devices=4", f"train.micro_batch_size={micro_batch}")
    assert_equal_training(m, dense)


@pytest.mark.parametrize(("plan", "more"), [("ep", ()), ("ep", ("plan.tensor_parallel_size=2", "plan.sharding=zero3"))])
def test_a_plan_of_experts_trains_as_one_process_does(tmp_path: Path, moe: Measurement, plan: str, more: tuple[str, ...]) -> None:
    m = measured(tmp_path, *MOE, f"plan={plan}", *more, "device.n_devices=4", "train.micro_batch_size=2")
    assert_equal_training(m, moe)


@pytest.mark.parametrize("how", ["selective", "full"])
def test_recomputing_changes_nothing_but_time(tmp_path: Path, dense: Measurement, how: str) -> None:
    m = measured(tmp_path, *DENSE, "plan=fsdp", f"plan.recompute={how}", "device.n_devices=4", "train.micro_batch_size=2")
    assert_equal_training(m, dense)


def test_two_ranks_in_bf16_stay_close_to_fp32(tmp_path: Path, dense: Measurement) -> None:
    m = measured(tmp_path, *DENSE, "plan=fsdp", "train.precision=bf16", "device.n_devices=2", "train.micro_batch_size=4")
    assert m.loss_last == pytest.approx(dense.loss_last, rel=2e-3)
    assert m.precision == "bf16"
