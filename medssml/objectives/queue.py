"""A queue of vectors of past batches, and of whom they are: what a method has as negatives beyond its batch."""

from __future__ import annotations

from collections.abc import Sequence

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
        columns: C modalities of which it keeps what a study showed, by their place in the model, so that duplicates are found.
    """

    def __init__(self, length: int, dim: int, columns: Sequence[int]) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"a queue of {length} vectors; fix: 1 or more")
        self.columns = list(columns)
        self.register_buffer("vectors", F.normalize(torch.randn(length, dim), dim=1))
        self.register_buffer("subject", torch.zeros(length, dtype=torch.int64))
        self.register_buffer("content", torch.zeros(length, len(self.columns), dtype=torch.int64))
        self.register_buffer("hashed", torch.zeros(length, len(self.columns), dtype=torch.bool))
        self.register_buffer("known", torch.zeros(length, dtype=torch.bool))
        self.vectors: Tensor
        self.subject: Tensor
        self.content: Tensor
        self.hashed: Tensor
        self.known: Tensor
        self.held = Held()

    def alike(self, studies: Studies, rows: Tensor, columns: Sequence[int]) -> Tensor:
        """(n, K) bool: which vectors are no negatives of the studies at `rows` (n,): of one subject, or of a duplicate in the
        modality of one of `columns`, which are some of its own."""
        found = same(studies.subject[rows], self.subject)
        for column in columns:
            place = self.columns.index(column)
            twice = same(studies.content[rows, column], self.content[:, place])
            found |= twice & (studies.hashed[rows, column, None] & self.hashed[:, place])
        return found & self.known

    def hold(self, vectors: Tensor, studies: Studies, rows: Tensor, at: int) -> None:
        """Keeps the vectors (n, D) of the studies at `rows` (n,) for `move`; at: see `Held`."""
        who = (studies.subject[rows], *(table[rows][:, self.columns] for table in (studies.content, studies.hashed)))
        self.held.put((vectors, *who, torch.ones_like(rows, dtype=torch.bool)), at)

    @torch.no_grad()
    def move(self) -> None:
        """The newest in front, the oldest out."""
        for held in self.held.take():
            for buffer, new in zip(
                (self.vectors, self.subject, self.content, self.hashed, self.known), held, strict=True
            ):
                buffer.copy_(torch.cat([new.to(buffer.dtype), buffer])[: len(buffer)])
