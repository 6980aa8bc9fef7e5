"""Standardisation by the first batches: what all studies share goes, what tells them apart stays."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medssml.losses.gather import global_sum

#: Batches that the statistics come from.
FIRST = 16
#: Smallest variance of a feature, as a share of the mean over those that are standardised: a nearly dead one is not blown up.
FLOOR = 1e-2


class Standardise(nn.Module):
    """(x - mean) / sd per feature, by the statistics of the first 16 batches: afterwards a fixed affine map.

    Two chests look alike: nearly all of an encoder's mean feature is common to every study, all pairs have a cosine near
    1, and a contrast between studies learns nothing for hundreds of steps. Batch normalisation would remove the common
    part, but would make a study's output depend on its batch, and a modality may have one row. Running statistics that
    are not differentiated would let it drift: a shift that lowers the loss is taken back by the next mean, so it is made
    again, until features die (Ioffe and Szegedy 2015, section 2). So the data set the scale where training begins, as in
    Salimans and Kingma 2016, section 3, and the gradient does the rest. Before the first batch it is the identity.

    Args:
        dim: D.
        given: how many features, the first ones, are left as they are: they have a scale of their own (`Descriptor`).
    """

    def __init__(self, dim: int, given: int = 0) -> None:
        super().__init__()
        self.given = given
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.mean: Tensor
        self.variance: Tensor
        self.batches: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) from x (..., D)."""
        least = (FLOOR * self.variance[self.given :].mean()).clamp(min=1e-12)
        return (x - self.mean) * self.variance.maximum(least).rsqrt()

    @torch.no_grad()
    def follow(self, rows: Tensor | None) -> None:
        """Takes the rows (n, D) of this rank into the statistics, with those of all ranks; None for no row.

        Nothing happens in evaluation mode, after the first 16 batches, or where all ranks together have fewer than two
        rows. Rows that are not finite do not count.
        """
        if not self.training or int(self.batches) >= FIRST:
            return
        mine = self.mean.new_zeros(0, len(self.mean)) if rows is None else rows.detach().to(self.mean.dtype)
        # A step that is not finite is skipped; what it saw must not stay either.
        mine = mine[torch.isfinite(mine).all(dim=1)]
        count = global_sum(mine.new_tensor(float(len(mine))))
        mean = global_sum(mine.sum(0)) / count.clamp(min=1)
        squares = global_sum((mine - mean).square().sum(0))
        if count < 2:
            return
        # The mean over batches; the variance counts how far their means lie apart.
        share = 1.0 / (int(self.batches) + 1)
        step = mean - self.mean
        step[: self.given] = 0
        kept = (self.variance + share * step.square()) * (1 - share) if share < 1 else torch.zeros_like(self.variance)
        found = kept + share * squares / count
        found[: self.given] = self.variance[: self.given]
        self.variance.copy_(found)
        self.mean.add_(share * step)
        self.batches += 1
