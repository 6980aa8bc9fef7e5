"""A queue of vectors of past batches, and of whom they are: what a method has as negatives beyond its batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.losses import same
from medssml.objectives.held import Held
from medssml.objectives.step import Studies


class Queue(nn.Module):
    """The last K vectors, first in, first out (He et al. 2020); random unit vectors of nobody until it is full.

    A forward pass holds its vectors, and the hook after the step moves them in: a step sees none of its own, and what a
    skipped step saw never enters. All ranks hold the same.

    Args:
        length: K. dim: D.
    """

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"a queue of {length} vectors; fix: 1 or more")
        self.register_buffer("vectors", F.normalize(torch.randn(length, dim), dim=1))
        for name, dtype in (("subject", torch.int64), ("content", torch.int64), ("hashed", torch.bool)):
            self.register_buffer(name, torch.zeros(length, dtype=dtype))
        self.register_buffer("known", torch.zeros(length, dtype=torch.bool))
        self.vectors: Tensor
        self.subject: Tensor
        self.content: Tensor
        self.hashed: Tensor
        self.known: Tensor
        self.held = Held()

    def alike(self, studies: Studies, rows: Tensor, column: int) -> Tensor:
        """(n, K) bool: which vectors are no negatives of the studies at `rows` (n,): of one subject, or of a duplicate in the
        modality of `column`."""
        twice = same(studies.content[rows, column], self.content) & (studies.hashed[rows, column, None] & self.hashed)
        return (same(studies.subject[rows], self.subject) | twice) & self.known

    def hold(self, vectors: Tensor, studies: Studies, rows: Tensor, column: int, at: int) -> None:
        """Keeps the vectors (n, D) of the studies at `rows` (n,) for `move`; at: see `Held`."""
        who = (studies.subject[rows], studies.content[rows, column], studies.hashed[rows, column])
        self.held.put((vectors, *who), at)

    @torch.no_grad()
    def move(self) -> None:
        """The newest in front, the oldest out."""
        for vectors, *who in self.held.take():
            for buffer, new in zip(
                (self.vectors, self.subject, self.content, self.hashed, self.known),
                (vectors.to(self.vectors.dtype), *who, torch.ones_like(who[-1])),
                strict=True,
            ):
                buffer.copy_(torch.cat([new, buffer])[: len(buffer)])
