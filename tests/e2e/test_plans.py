"""A plan is what it says: four ranks under it train to the same loss and gradient as one process with the whole batch."""

from pathlib import Path

import pytest

from bench.facts.breakdown import Phase
from bench.facts.measurement import Measurement
from bench.store.results import read_result
from tests.conftest import run_bench

# Six steps in all: one looked at, two of warm-up, two timed, one looked at.
BATCH = (
    "device=cpu",
    "device.threads_per_rank=1",
    "train.precision=fp32",
    "train.global_batch_size=8",
    "train.learning_rate=0.001",
    "measure.steps=2",
)
BATCH += ("page=false", "cluster=oracle_24k_h100")
# the breakdown takes two more steps, or two pairs of them
STEPS = ("measure.breakdown_steps=1", "measure.warmup_min_steps=2", "measure.warmup_max_steps=2")
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
    # passes as large as those of the ranks: rounding goes by their size, and a router near a tie makes much of it
    return measured(tmp_path_factory.mktemp("moe"), *MOE, "device.n_devices=1", "train.micro_batch_size=1")


def assert_equal_training(plan: Measurement, whole: Measurement) -> None:
    assert plan.world_size == 4
    assert plan.tokens_per_step == whole.tokens_per_step
    assert plan.n_parameters == whole.n_parameters
    assert plan.loss_first == pytest.approx(whole.loss_first, rel=LOSS_TOLERANCE)
    assert plan.loss_last == pytest.approx(whole.loss_last, rel=LOSS_TOLERANCE)
    assert plan.grad_norm == pytest.approx(whole.grad_norm, rel=NORM_TOLERANCE)


def assert_cut_into_phases(m: Measurement) -> None:
    """The phases of every rank fill its step; a pipeline has a bubble on every rank, another plan has none."""
    assert m.breakdown is not None
    is_pipeline = m.plan.pipeline_parallel_size > 1
    assert (m.breakdown.bubble_s is not None) == is_pipeline
    for r in m.breakdown.ranks:
        assert set(r.phase_s) == {*Phase} - (set() if is_pipeline else {Phase.BUBBLE})
        assert all(seconds > 0 for seconds in r.phase_s.values())


@pytest.mark.parametrize(
    ("plan", "micro_batch", "recompute"),
    [
        ("fsdp", 1, "full"),
        ("pp_tp", 2, "full"),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (
                ("ddp", 1, "none"),
                ("cp", 2, "none"),
                ("zero1", 1, "full"),
                ("zero2", 1, "selective"),
                ("hsdp", 1, "none"),
                ("tp", 2, "none"),
                ("pp", 1, "none"),
                ("pp_interleaved", 1, "none"),
                ("fsdp_tp", 2, "selective"),
            )
        ),
    ],
)
def test_a_dense_plan_trains_as_one_process_does(tmp_path: Path, dense: Measurement, plan: str, micro_batch: int, recompute: str) -> None:
    """With two or more passes per step, so that gradients accumulate; layers that are computed again change nothing but time."""
    size = f"train.micro_batch_size={micro_batch}"
    m = measured(tmp_path, *DENSE, f"plan={plan}", f"plan.recompute={recompute}", "device.n_devices=4", size)
    assert m.batch.n_micro_batches >= 2
    assert m.plan.recompute == recompute
    assert_equal_training(m, dense)
    assert_cut_into_phases(m)


@pytest.mark.parametrize(
    ("plan", "more"),
    [pytest.param("ep", (), marks=pytest.mark.slow), ("ep", ("plan.tensor_parallel_size=2", "plan.sharding=zero3"))],
)
def test_a_plan_of_experts_trains_as_one_process_does(tmp_path: Path, moe: Measurement, plan: str, more: tuple[str, ...]) -> None:
    m = measured(tmp_path, *MOE, f"plan={plan}", *more, "device.n_devices=4", "train.micro_batch_size=1")
    assert m.batch.n_micro_batches >= 2
    assert_equal_training(m, moe)


@pytest.mark.slow
@pytest.mark.parametrize(("plan", "micro_batch"), [("ddp", 1), ("fsdp", 1), ("pp", 1), ("cp", 2)])
def test_a_compiled_plan_trains_as_one_process_does(tmp_path: Path, dense: Measurement, plan: str, micro_batch: int) -> None:
    """Not with split tensors: what they compile to has other gradients, and is refused."""
    size = f"train.micro_batch_size={micro_batch}"
    m = measured(tmp_path, *DENSE, f"plan={plan}", "train.compile=true", "device.n_devices=4", size)
    assert m.compiled
    assert m.compile_s > 1.0  # the first step of all compiles; a later one takes milliseconds
    assert_equal_training(m, dense)


@pytest.mark.slow
def test_two_ranks_in_bf16_stay_close_to_fp32(tmp_path: Path, dense: Measurement) -> None:
    m = measured(tmp_path, *DENSE, "plan=fsdp", "train.precision=bf16", "device.n_devices=2", "train.micro_batch_size=4")
    assert m.loss_last == pytest.approx(dense.loss_last, rel=2e-3)
    assert m.precision == "bf16"
