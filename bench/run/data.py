"""Made-up tokens, already on the device: the step is measured, not a data loader."""

import torch
from torch import Tensor

from bench.facts.run import RunSpec

POOL_STEPS = 8


class TokenPool:
    """An endless cycle over the uniform random tokens of a few optimizer steps.

    A sequence depends on the seed, the step and its place in the global batch alone: however a plan deals the batch out,
    the whole world sees the same. Inputs and targets are int64 [micro_batch_size, S], targets one token ahead; a
    context-parallel rank sees the positions [S / cp] given to it.
    """

    def __init__(self, spec: RunSpec, data_rank: int, device: torch.device, positions: Tensor | None = None) -> None:
        self._spec, self._rank, self._at = spec, data_rank, 0
        self._n_micro_batches = spec.batch.n_micro_batches
        own = torch.stack([self._sequences(i) for i in range(POOL_STEPS * self._n_micro_batches)])
        inputs, targets = own[..., :-1], own[..., 1:]
        if positions is not None:
            inputs, targets = inputs[..., positions], targets[..., positions]
        self._batches = [(i.contiguous(), t.contiguous()) for i, t in zip(inputs.to(device), targets.to(device), strict=True)]
        grouped = self._grouped() if spec.plan.pipeline_parallel_size > 1 else []
        self._steps = [(torch.cat([i for i, _ in step]), torch.cat([t for _, t in step])) for step in grouped]

    def micro_batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the next pass."""
        batch = self._batches[self._at]
        self._at = (self._at + 1) % len(self._batches)
        return batch

    def step(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets [n_micro_batches * micro_batch_size, S] of the next optimizer step, for a pipeline to cut."""
        batch = self._steps[self._at]
        self._at = (self._at + 1) % len(self._steps)
        return batch

    def go_to(self, step: int) -> None:
        """Nothing; the next tokens are those of the optimizer step after so many."""
        steps = step % POOL_STEPS
        self._at = steps if self._steps else steps * self._n_micro_batches

    def _grouped(self) -> list[list[tuple[Tensor, Tensor]]]:
        n = self._n_micro_batches
        return [self._batches[k : k + n] for k in range(0, len(self._batches), n)]

    def _sequences(self, index: int) -> Tensor:
        """Tokens [micro_batch_size, S + 1] of this rank's pass number `index` in the pool."""
        batch, shape = self._spec.batch, self._spec.model
        step, micro = divmod(index, self._n_micro_batches)
        first = step * batch.global_batch_size + (micro * batch.data_parallel_size + self._rank) * batch.micro_batch_size
        rows = [torch.Generator().manual_seed(self._spec.train.seed * 1_000_003 + first + i) for i in range(batch.micro_batch_size)]
        return torch.stack([torch.randint(0, shape.vocab_size, (shape.seq_len + 1,), generator=row) for row in rows])
