"""Vectors of earlier batches, for what one batch holds too few of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medssml.objectives.held import Held
from medssml.objectives.step import Step


class RecentVectors(nn.Module):
    """The last `length` vectors of each of several groups, without gradient, the same on every rank.

    What a step offers enters after it, where it was not skipped: an objective calls `offer` in its forward pass and
    `advance` in `after_step`. Part of a run's state.

    Args:
        groups: such as modalities. length: of each. dim: D.
    """

    def __init__(self, groups: int, length: int, dim: int) -> None:
        super().__init__()
        self.length = length
        self.register_buffer("rows", torch.zeros(groups, length, dim))
        self.register_buffer("filled", torch.zeros(groups, dtype=torch.int64))
        self.rows: Tensor
        self.filled: Tensor
        self.held = Held()

    def of(self, group: int) -> Tensor:
        """(n, D) the vectors that are there, the newest last."""
        return self.rows[group, self.length - int(self.filled[group]) :]

    def full(self, group: int) -> bool:
        """Whether all of its places are taken."""
        return bool(self.filled[group] == self.length)

    def offer(self, step: Step, vectors: list[Tensor]) -> None:
        """Group -> vectors (n, D) of all ranks, of which those of a step that is skipped never enter."""
        if self.training and self.length > 0:
            self.held.put(tuple(vectors), step.clock.step)

    @torch.no_grad()
    def advance(self) -> None:
        """Takes in what was offered, and drops the oldest."""
        for vectors in self.held.take():
            for group, offered in enumerate(vectors):
                joined = torch.cat([self.rows[group], offered.to(self.rows)])
                self.rows[group] = joined[len(joined) - self.length :].clone()
                self.filled[group] = (self.filled[group] + len(offered)).clamp(max=self.length)
