"""Made-up tokens, already on the device: the step is measured, not a data loader."""

from collections.abc import Iterator

import torch

POOL_BATCHES = 8


class TokenPool:
    """An endless cycle over a few batches of uniform random tokens; another stream for every rank.

    Each batch is a pair of inputs and targets, both int64 [micro_batch_size, seq_len], targets one token ahead.
    """

    def __init__(self, micro_batch_size: int, seq_len: int, vocab_size: int, seed: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(0, vocab_size, (POOL_BATCHES, micro_batch_size, seq_len + 1), generator=generator).to(device)
        self._batches = [(batch[:, :-1].contiguous(), batch[:, 1:].contiguous()) for batch in tokens]
        self._at = 0

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        batch = self._batches[self._at]
        self._at = (self._at + 1) % POOL_BATCHES
        return batch
