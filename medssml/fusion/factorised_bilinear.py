"""Factorised bilinear fusion: pooled products of every two modalities, on top of what each says by itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, OwnLinear

#: Added under the root, whose slope at 0 has no bound.
EPSILON = 1e-6


class FactorisedBilinear(Fusion):
    """h = b + sum over present m of x_m + P sum over present pairs m < n of z_mn   (MFB, Yu et al. 2017)

        q_mn = sum over k of (U_m x_m + c_m)_k * (U_n x_n + c_n)_k       k features in a row, as many for each of D
        z_mn = l2-normalised  sign(q_mn) sqrt |q_mn|                      power normalisation

    A pair of which one is absent adds nothing. Against `LowRankBilinear` the two normalisations keep few large products
    from deciding everything.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. factors: k. dropout: of the products, before they are summed (0.1 in the paper).

    Raises:
        ValueError: fewer than one factor.
    """

    reads = "pooled"

    def __init__(self, modalities: Sequence[str], dim: int, factors: int = 5, dropout: float = 0.0) -> None:
        super().__init__(modalities, dim)
        if factors < 1:
            raise ValueError(f"factors is {factors}; fix: at least 1")
        self.base = nn.Parameter(torch.zeros(dim))
        pairs = list(combinations(range(len(self.modalities)), 2))
        self.first, self.second = [m for m, _ in pairs], [n for _, n in pairs]
        self.expand = OwnLinear(len(self.modalities), dim, dim * factors)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); see `Fusion.forward`."""
        tokens = self.table(encoded, present)

        # Every pair's products, summed over the factors; ones for a pair that is not there, so that its root has a slope.
        wide = self.expand(tokens)
        products = self.dropout(wide[:, self.first] * wide[:, self.second])
        both = (present[:, self.first] & present[:, self.second]).unsqueeze(-1)
        pooled = torch.where(both, products.unflatten(-1, (self.dim, -1)).sum(-1), 1.0)

        # Power and l2 normalisation; what is not there adds nothing.
        pooled = F.normalize(pooled / (pooled.abs() + EPSILON).sqrt(), dim=-1)
        pairs = torch.where(both, pooled, 0.0).sum(1)
        return Fused(tokens, present, self.base + tokens.sum(1) + self.out(pairs))
