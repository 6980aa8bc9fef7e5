"""Low-rank tensor fusion: the outer product of all modalities without ever writing it down."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion


class LowRankTensorFusion(Fusion):
    """h = sum over r of w_r * product over m of ([1; x_m] F_m^r), elementwise, + b  (LMF, Liu et al. 2018)

    `TensorFusion` whose weights are a sum of R rank-one tensors: what it costs grows with M and not as a power of it. An
    absent modality is [1; 0], so that its factor is the first row of F_m^r. These rows begin at 1, so that what is absent
    does not shrink what is there; the other rows and w as published (Xavier).

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. rank: R; the paper goes up to 16.

    Raises:
        ValueError: a rank below 1.
    """

    reads = "pooled"

    def __init__(self, modalities: Sequence[str], dim: int, rank: int = 4) -> None:
        super().__init__(modalities, dim)
        if rank < 1:
            raise ValueError(f"rank is {rank}; fix: at least 1")
        # Registered, and so trained and saved: in a plain list they would be neither.
        self.factors = nn.ParameterList([_factor(rank, dim) for _ in self.modalities])
        self.weights = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, rank)).squeeze(0))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); see `Fusion.forward`."""
        tokens = self.table(encoded, present)
        product = tokens.new_ones(())
        for m, factor in enumerate(self.factors):
            product = product * (factor[:, 0] + torch.einsum("bd,rde->bre", tokens[:, m], factor[:, 1:]))
        return Fused(tokens, present, torch.einsum("r,bre->be", self.weights, product) + self.bias)


def _factor(rank: int, dim: int) -> nn.Parameter:
    """(R, 1 + D, D), the row of the constant first."""
    rows = torch.randn(rank, 1 + dim, dim) * (2 / (1 + 2 * dim)) ** 0.5
    rows[:, 0] = 1.0
    return nn.Parameter(rows)
