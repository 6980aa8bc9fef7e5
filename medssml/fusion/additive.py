"""Additive fusion: each modality's evidence on its own, and what attention finds between them on top."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion
from medssml.fusion.masked_attention import MaskedAttention

#: Share of what attention finds, at first.
SHARE = 0.1


class AdditiveFusion(Fusion):
    """h = b + sum over present m of x_m + g * attention(x_1, ..., x_M), with a small g at first.

    Under a linear head the log odds are a sum over modalities, which is what independent evidence gives (naive Bayes; a
    product of experts, Hinton 2002): what one modality shows is not lost among the others, an absent one adds nothing,
    and few labels suffice. What only two modalities together say needs the second term, a `MaskedAttention` whose share
    g, one number per feature, is learned (LayerScale, Touvron et al. 2021).

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. depth: blocks of the attention; 0 leaves it out. heads: attention heads.
        mlp_ratio, dropout: of the blocks.
    """

    reads = "pooled"

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        depth: int = 1,
        heads: int = 4,
        *,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(modalities, dim)
        self.base = nn.Parameter(torch.zeros(dim))
        self.between = (
            MaskedAttention(modalities, dim, depth, heads, mlp_ratio=mlp_ratio, dropout=dropout) if depth else None
        )
        self.share = nn.Parameter(torch.full((dim,), SHARE)) if depth else None

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); see `Fusion.forward`."""
        tokens = self.table(encoded, present)
        pooled = self.base + tokens.sum(1)
        if self.between is not None and self.share is not None:
            pooled = pooled + self.share * self.between(encoded, present).pooled
        return Fused(tokens, present, pooled)
