"""Training speed of this package's transformer beside that of its peers: same shape, precision, optimizer and batch, in one process.

    pip install -e .[peers]
    python benchmarks/peers/compare.py [--model dense_20m] [--batch 4] [--rounds 7] [--precision bf16 fp32] [--mode eager compiled]

Steps of all models alternate, so that a busy machine slows all of them; the median of the ratios within a round counts.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from gpt import Gpt
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

from bench.config.compose import compose
from bench.facts.model import ModelShape
from bench.run.transformer import Transformer

OURS, SHARDED = "proxybench", "Llama under FSDP2"
WARMUP_STEPS = 2
Loss = Callable[[Tensor, Tensor], Tensor]
DTYPES = {"bf16": torch.bfloat16, "fp32": None}


class Llama(LlamaForCausalLM):
    """Loss of transformers' Llama of the same shape, with its fused attention."""

    def __init__(self, shape: ModelShape) -> None:
        config = LlamaConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.d_model,
            intermediate_size=shape.d_ff,
            num_hidden_layers=shape.n_layers,
            num_attention_heads=shape.n_heads,
            num_key_value_heads=shape.n_kv_heads,
            head_dim=shape.head_dim,
            max_position_embeddings=shape.seq_len,
            tie_word_embeddings=shape.tied_embedding,
            use_cache=False,
            attn_implementation="sdpa",
        )
        super().__init__(config)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        # given as shift_labels, targets are not shifted once more
        return super().forward(input_ids=tokens, labels=targets, shift_labels=targets).loss


def candidates(shape: ModelShape) -> dict[str, nn.Module]:
    """The models by name, ours first."""
    ours = Transformer(shape)
    return {OURS: ours, "transformers Llama": Llama(shape), SHARDED: Llama(shape), "nanoGPT-like": Gpt(shape, n_parameters(ours))}


def sharded(model: Llama, device: torch.device, dtype: torch.dtype | None, compiled: bool) -> Llama:
    """The model as a bare FSDP2 loop has it, torchtitan's among them: every layer sharded for itself, here over one device; its
    weights in the narrow dtype while they are used; every layer compiled for itself."""
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    mesh = dist.init_device_mesh(device.type, (1,))
    policy = MixedPrecisionPolicy(param_dtype=dtype)
    for layer in model.model.layers:
        if compiled:
            layer.compile()
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def n_parameters(model: nn.Module) -> int:
    """Parameters, a tied one counted once."""
    return sum(p.numel() for p in model.parameters())


def trainer(model: nn.Module, tokens: Tensor, dtype: torch.dtype | None, compiled: bool) -> Callable[[], float]:
    """A function that takes one optimizer step and returns its loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, fused=True)
    loss_of: Loss = torch.compile(model) if compiled else model
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step() -> float:
        with torch.autocast(tokens.device.type, dtype, enabled=dtype is not None):
            loss = loss_of(inputs, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()  # waits for the device

    return step


def seconds(clock: Callable[[], float], step: Callable[[], float]) -> float:
    """Seconds of one step."""
    begun = clock()
    step()
    return clock() - begun


def alternate(steps: dict[str, Callable[[], float]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of every step of every model, who goes first moving on from round to round."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for r in range(rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            taken[name].append(seconds(clock, steps[name]))
    return taken


def compare(shape: ModelShape, asked: argparse.Namespace, precision: str, mode: str) -> None:
    """Nothing; prints a row for each model."""
    torch.manual_seed(0)
    torch.compiler.reset()
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    tokens = torch.randint(shape.vocab_size, (asked.batch, shape.seq_len + 1), device=device)
    with device:
        models = candidates(shape)
    dtype, compiled = DTYPES[precision], mode == "compiled"
    sharded(models[SHARDED], device, dtype, compiled)
    casts = dict.fromkeys(models, dtype) | {SHARDED: None}  # FSDP2 casts the weights, autocast those of the others
    compiles = dict.fromkeys(models, compiled) | {SHARDED: False}  # layer by layer already
    steps = {name: trainer(model, tokens, casts[name], compiles[name]) for name, model in models.items()}
    for step in steps.values():
        for _ in range(WARMUP_STEPS):
            step()
    taken = alternate(steps, asked.rounds, time.process_time if asked.cpu_seconds else time.perf_counter)
    for name, all_s in taken.items():
        rate = asked.batch * shape.seq_len / statistics.median(all_s)
        ratio = statistics.median(theirs / own for theirs, own in zip(all_s, taken[OURS], strict=True))
        print(f"{precision:<9} {mode:<9} {name:<19} {n_parameters(models[name]) / 1e6:>7.2f} {rate:>10,.0f} {ratio:>10.2f}", flush=True)


def main() -> None:
    """Nothing; prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dense_20m", help="a dense model of conf/model")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--mode", nargs="+", choices=("eager", "compiled"), default=["eager", "compiled"])
    parser.add_argument("--cpu-seconds", action="store_true", help="count CPU seconds: other processes hardly disturb them; one thread")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    shape = compose([f"model={asked.model}"]).model
    assert isinstance(shape, ModelShape), "one rung, not a ladder"
    print(f"{shape.name}, {asked.batch} sequences of {shape.seq_len} tokens, {asked.threads} threads, {asked.rounds} rounds\n")
    print(f"{'precision':<9} {'mode':<9} {'model':<19} {'M par.':>7} {'tokens/s':>10} {'ours over':>10}")
    for precision in asked.precision:
        for mode in asked.mode:
            compare(shape, asked, precision, mode)


if __name__ == "__main__":
    main()
