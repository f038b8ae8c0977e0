"""State that is saved comes back bit by bit, on other ranks too; what is torn is passed over and named."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bench.errors import BenchError, UsageError
from bench.facts.hardware import Backend, Precision
from bench.facts.model import ModelShape
from bench.facts.plan import BatchPlan, ParallelPlan, Sharding
from bench.facts.run import RunSpec, TrainPolicy
from bench.run.checkpoint import LATEST, load, save
from bench.run.devices import LocalDevice
from bench.run.manifest import MANIFEST
from bench.run.train import Trainer
from tests.unit.test_record import POLICY

LEAST = ModelShape(
    name="least", n_layers=2, d_model=16, n_heads=2, n_kv_heads=2, head_dim=8, d_ff=16, vocab_size=32, seq_len=8, source="this test"
)
EXPERTS = replace(LEAST, name="experts", d_ff=0, n_experts=2, experts_top_k=1, d_ff_expert=16)
CPU = LocalDevice(Backend.CPU, 0)
ONE = ParallelPlan(data_parallel_size=1)
PLANS = {
    "ddp": ParallelPlan(data_parallel_size=2),
    "zero1": ParallelPlan(data_parallel_size=2, sharding=Sharding.ZERO1),
    "fsdp": ParallelPlan(data_parallel_size=2, sharding=Sharding.ZERO3),
    "tp": ParallelPlan(data_parallel_size=1, tensor_parallel_size=2),
    "pp": ParallelPlan(data_parallel_size=1, pipeline_parallel_size=2),
    "ep": ParallelPlan(data_parallel_size=2, expert_parallel_size=2),
}
MODELS = {"ep": EXPERTS}


def spec_of(plan: ParallelPlan = ONE, model: ModelShape = LEAST, sequences: int = 4) -> RunSpec:
    dp = plan.data_parallel_size
    return RunSpec(
        backend=Backend.CPU,
        world_size=plan.world_size,
        threads_per_rank=1,
        model=model,
        plan=plan,
        batch=BatchPlan(micro_batch_size=1, global_batch_size=sequences, data_parallel_size=dp),
        train=TrainPolicy(precision=Precision.FP32, compiled=False, learning_rate=1e-3, weight_decay=0.1, seed=0),
        measure=POLICY,
    )


def trained(n_steps: int, spec: RunSpec | None = None) -> Trainer:
    trainer = Trainer(spec or spec_of(), CPU)
    for _ in range(n_steps):
        trainer.step()
    return trainer


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.passes.parameters]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_run_goes_on_bit_by_bit(tmp_path: Path) -> None:
    undisturbed = trained(10)
    before = trained(4)
    written = save(before, tmp_path, 4)
    assert written.time_s > 0
    assert written.size_bytes == sum(file.stat().st_size for file in (tmp_path / "step-4").iterdir() if file.name != MANIFEST)
    assert written.size_bytes > 12 * before.n_parameters  # weights and two moments in fp32, and headers
    after = Trainer(spec_of(), CPU)
    read = load(after, tmp_path)
    assert read is not None
    assert (read.step, read.passed_over) == (4, ())
    assert same(weights(before), weights(after))
    for _ in range(6):
        after.step()
    assert same(weights(undisturbed), weights(after))


def test_nothing_saved_is_nothing_loaded(tmp_path: Path) -> None:
    assert load(trained(0), tmp_path / "nowhere") is None


def test_two_states_are_kept_and_the_pointer_names_the_last(tmp_path: Path) -> None:
    trainer = trained(1)
    for step in (1, 2, 3):
        save(trainer, tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LATEST, "step-2", "step-3"]
    assert (tmp_path / LATEST).read_text() == "step-3"


def shard(path: Path) -> Path:
    return next(path.glob("*.distcp"))


def cut(path: Path) -> None:
    os.truncate(shard(path), shard(path).stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(shard(path).read_bytes())
    data[len(data) // 2] ^= 1
    shard(path).write_bytes(data)


def outside(path: Path) -> None:
    told = json.loads((path / MANIFEST).read_text())
    told["files"]["../../secret"] = told["files"].pop(shard(path).name)
    (path / MANIFEST).write_text(json.dumps(told))


TEARS: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated shard": (cut, "bytes and should have"),
    "missing shard": (lambda path: shard(path).unlink(), "cannot be read (No such file"),
    "flipped byte": (flip, "does not have the checksum"),
    "no list of tensors": (lambda path: (path / ".metadata").unlink(), ".metadata cannot be read"),
    "no manifest": (lambda path: (path / MANIFEST).unlink(), "manifest.json cannot be read"),
    "empty manifest": (lambda path: (path / MANIFEST).write_text(""), "manifest.json is not JSON"),
    "a file elsewhere": (outside, "is not one of version 1"),
}


@pytest.mark.parametrize("tear", TEARS)
def test_a_torn_state_is_passed_over_for_the_one_before(tmp_path: Path, tear: str) -> None:
    before = trained(2)
    save(before, tmp_path, 2)
    kept = weights(before)
    before.step()
    save(before, tmp_path, 3)
    act, reason = TEARS[tear]
    act(tmp_path / "step-3")
    after = Trainer(spec_of(), CPU)
    read = load(after, tmp_path)
    assert read is not None
    assert read.step == 2
    assert "step-3 is torn" in read.passed_over[0]
    assert reason in read.passed_over[0]
    assert same(kept, weights(after))
    # and the same steps can be saved again
    after.step()
    save(after, tmp_path, 3)
    again = load(Trainer(spec_of(), CPU), tmp_path)
    assert again is not None
    assert again.step == 3


@pytest.mark.parametrize("content", [b"", b"step-9", b"\xff\xfe"])
def test_a_pointer_that_names_nothing_is_done_without(tmp_path: Path, content: bytes) -> None:
    save(trained(1), tmp_path, 1)
    (tmp_path / LATEST).write_bytes(content)
    read = load(trained(0), tmp_path)
    assert read is not None
    assert read.step == 1


def test_all_torn_is_an_error_of_one_line(tmp_path: Path) -> None:
    save(trained(1), tmp_path, 1)
    flip(tmp_path / "step-1")
    with pytest.raises(BenchError, match=r"holds no whole state \(step-1 is torn.*remove it to begin anew") as error:
        load(trained(0), tmp_path)
    assert "\n" not in str(error.value)


def test_a_killed_write_leaves_the_state_before(tmp_path: Path) -> None:
    trainer = trained(1)
    save(trainer, tmp_path, 1)
    shutil.copytree(tmp_path / "step-1", tmp_path / "step-2.tmp")
    read = load(trained(0), tmp_path)
    assert read is not None
    assert read.step == 1
    save(trainer, tmp_path, 2)
    assert not (tmp_path / "step-2.tmp").exists()


def test_another_model_is_refused(tmp_path: Path) -> None:
    save(trained(1), tmp_path, 1)
    with pytest.raises(UsageError, match="is of a model with d_ff 16, this one has 32"):
        load(Trainer(spec_of(model=replace(LEAST, d_ff=32)), CPU), tmp_path)


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="the state after step 1 was not kept") as error:
        save(trained(1), tmp_path / "file" / "below", 1)
    assert "\n" not in str(error.value)


def rank(number: int, folder: str, acts: list[tuple[str, str]]) -> None:
    """One of two ranks: for each plan and what it begins from, writes what it holds two steps after the third."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    root = Path(folder)
    for name, begin in acts:
        if begin == "nothing":
            trainer = trained(3, spec_of(PLANS[name], MODELS.get(name, LEAST)))
            save(trainer, root / name, 3)
        else:
            trainer = Trainer(spec_of(PLANS[name], MODELS.get(name, LEAST)), CPU)
            read = load(trainer, root / begin)
            assert read is not None
            assert read.step == 3
        for _ in range(2):
            trainer.step()
        torch.save(locals_of(trainer), root / f"{name}-from-{begin}-{number}.pt")
    dist.barrier()
    dist.destroy_process_group()


def locals_of(trainer: Trainer) -> list[Any]:
    parts = (getattr(p, "to_local", lambda p=p: p)() for p in trainer.passes.parameters)
    return [p.detach().clone() for p in parts]


def held(folder: Path, name: str, begin: str) -> list[list[torch.Tensor]]:
    """What the two ranks held."""
    return [torch.load(folder / f"{name}-from-{begin}-{number}.pt", weights_only=True) for number in range(2)]


def close(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(first, second, strict=True))


def goes_on(folder: Path, names: list[str]) -> None:
    """Nothing; two ranks go on bit by bit under each plan and from one rank, and one rank goes on from each."""
    save(trained(3), folder / "one", 3)
    acts = [(name, begin) for name in names for begin in ("nothing", name, "one")]
    mp.spawn(rank, (str(folder), acts), nprocs=2)  # type: ignore[no-untyped-call]
    for name in names:
        undisturbed = held(folder, name, "nothing")
        assert all(same(a, b) for a, b in zip(undisturbed, held(folder, name, name), strict=True)), name
        assert all(close(a, b) for a, b in zip(undisturbed, held(folder, name, "one"), strict=True)), name
        alone, reference = Trainer(spec_of(), CPU), trained(3)
        read = load(alone, folder / name)
        assert read is not None
        assert read.passed_over == ()
        assert close(weights(alone), weights(reference)), name
        for _ in range(2):
            alone.step()
            reference.step()
        assert close(weights(alone), weights(reference)), name


@pytest.mark.slow
def test_two_ranks_go_on_bit_by_bit_and_one_rank_goes_on_from_them(tmp_path: Path) -> None:
    goes_on(tmp_path, ["ddp", "zero1", "fsdp"])


@pytest.mark.slow
def test_split_tensors_and_stages_go_on_as_one_rank_and_from_it(tmp_path: Path) -> None:
    goes_on(tmp_path, ["tp", "pp"])


@pytest.mark.slow
def test_experts_go_on_as_they_were_split_and_are_refused_otherwise(tmp_path: Path) -> None:
    mp.spawn(rank, (str(tmp_path), [("ep", "nothing"), ("ep", "ep")]), nprocs=2)  # type: ignore[no-untyped-call]
    assert all(same(a, b) for a, b in zip(held(tmp_path, "ep", "nothing"), held(tmp_path, "ep", "ep"), strict=True))
    with pytest.raises(UsageError, match=r"has no model\.layers\.0\..*use its expert_parallel_size") as error:
        load(Trainer(spec_of(model=EXPERTS), CPU), tmp_path / "ep")
    assert "\n" not in str(error.value)
