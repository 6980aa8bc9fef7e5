"""Concatenation with learned tokens in the place of what is absent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion


class ConcatFusion(Fusion):
    """h = mlp([x_1; ...; x_M]), where an absent x_m is a learned vector a_m.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. hidden: width of the MLP; None for 2 D. dropout: in the MLP.
    """

    reads = "pooled"

    def __init__(self, modalities: Sequence[str], dim: int, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__(modalities, dim)
        width = 2 * dim if hidden is None else hidden
        self.absent = nn.Parameter(torch.randn(len(self.modalities), dim) * 0.02)
        self.mlp = nn.Sequential(
            nn.LayerNorm(len(self.modalities) * dim),
            nn.Linear(len(self.modalities) * dim, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, dim),
        )

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); see `Fusion.forward`."""
        tokens = self.absent.expand(len(present), -1, -1)
        for column, part, rows in self.in_order(encoded, present):
            at = (rows, torch.full_like(rows, column))
            tokens = tokens.index_put(at, part.pooled.to(tokens.dtype))
        return Fused(tokens, present, self.mlp(tokens.flatten(1)))
