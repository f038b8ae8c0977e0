"""Bytes that stay between steps, summed tensor by tensor."""

import torch

from bench.facts.hardware import Backend, Precision
from bench.facts.plan import BatchPlan, ParallelPlan
from bench.facts.run import RunSpec, TrainPolicy
from bench.run.devices import LocalDevice
from bench.run.memory import memory_use, tensor_bytes
from bench.run.train import Trainer
from tests.round_numbers import SMALL
from tests.unit.test_record import POLICY


def test_a_tensor_under_two_names_counts_once() -> None:
    shared, other = torch.zeros(10, dtype=torch.float32), torch.zeros(4, dtype=torch.float64)
    # 10 x 4 + 4 x 8 bytes
    assert tensor_bytes([shared, other, shared.view(2, 5)]) == 72


def test_adamw_keeps_two_numbers_for_every_parameter() -> None:
    spec = RunSpec(
        backend=Backend.CPU,
        world_size=1,
        threads_per_rank=1,
        model=type(SMALL)(
            name="least", n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, head_dim=8, d_ff=16, vocab_size=32, seq_len=8, source="this test"
        ),
        plan=ParallelPlan(data_parallel_size=1),
        batch=BatchPlan(micro_batch_size=1, global_batch_size=1, data_parallel_size=1),
        train=TrainPolicy(precision=Precision.FP32, compiled=False, learning_rate=1e-3, weight_decay=0.1, seed=0),
        measure=POLICY,
    )
    device = LocalDevice(Backend.CPU, 0)
    trainer = Trainer(spec, device)
    trainer.step()
    use = memory_use(trainer, device)
    n_tensors = len(trainer.passes.parameters)
    assert use.parameters_bytes == use.gradients_bytes == 4 * trainer.n_parameters
    # exp_avg and exp_avg_sq, and one fp32 step count per tensor
    assert use.optimizer_bytes == 8 * trainer.n_parameters + 4 * n_tensors
    assert use.static_bytes == 16 * trainer.n_parameters + 4 * n_tensors
    assert (use.activations_bytes, use.peak_allocated_bytes, use.n_retries) == (None, None, None)
