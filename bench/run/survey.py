"""What is here before anything is measured."""

import time
from collections.abc import Iterable

import torch
from accelerate.utils import gather_object

from bench.facts.hardware import Backend, Precision
from bench.facts.measurement import Survey
from bench.facts.model import ModelShape
from bench.run.devices import LocalDevice, has_fast_bf16
from bench.run.transformer import Transformer

TRIAL_S = 1.0  # of training steps for each precision
TRIAL_SHAPE = ModelShape(
    name="trial", n_layers=2, d_model=512, n_heads=8, n_kv_heads=4, head_dim=64, d_ff=1536, vocab_size=2048, seq_len=256, source="this file"
)


def take_survey(device: LocalDevice, world_size: int, n_local_ranks: int, threads_per_rank: int, trial_flops: float | None) -> Survey:
    """The survey of this rank's device; with `trial_flops`, the FLOPs of one sequence of TRIAL_SHAPE, a timed trial as well."""
    rates = {} if trial_flops is None else {p: trial_flops * _sequences_per_s(device, p) for p in _candidates(device.backend)}
    everyone = gather_object([(rates, device.free_memory_bytes(n_local_ranks))])
    slowest = {p: min(r[p] for r, _ in everyone) for p in rates}
    return Survey(
        backend=device.backend,
        device_name=device.name(),
        world_size=world_size,
        memory_bytes=min(memory for _, memory in everyone),
        threads_per_rank=threads_per_rank,
        trial_flops_per_s=slowest,
    )


def _candidates(backend: Backend) -> Iterable[Precision]:
    if not has_fast_bf16(backend):
        return (Precision.FP32,)
    return (Precision.BF16, Precision.FP32) if backend is Backend.CPU else (Precision.BF16,)


def _sequences_per_s(device: LocalDevice, precision: Precision) -> float:
    """Sequences that one device trains per second, all ranks working at the same time."""
    kind, batch = device.torch_device, 4 if device.is_cpu else 64
    model = Transformer(TRIAL_SHAPE).to(kind)
    optimizer = torch.optim.AdamW(model.parameters(), fused=device.backend is not Backend.MPS)
    tokens = torch.randint(0, TRIAL_SHAPE.vocab_size, (batch, TRIAL_SHAPE.seq_len), device=kind)

    def step() -> None:
        with torch.autocast(kind.type, torch.bfloat16, enabled=precision is Precision.BF16):
            loss = model(tokens, tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(2):
        step()
    device.synchronize()
    gather_object([0])
    begun, n = time.perf_counter(), 0
    while time.perf_counter() - begun < TRIAL_S or n < 3:
        step()
        device.synchronize()
        n += 1
    return batch * n / (time.perf_counter() - begun)
