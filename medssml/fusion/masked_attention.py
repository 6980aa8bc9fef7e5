"""Masked attention: a transformer over the tokens that are there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, scatter
from medssml.layers import Transformer


class MaskedAttention(Fusion):
    """[f; x_1 + e_1; ...; x_M + e_M] -> transformer in which absent tokens are masked keys -> the output at f.

    f is a learned fusion token, always there, so that a study without anything is defined; e_m says which modality.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. depth: blocks. heads: attention heads.
        tokens: "pooled", one token per modality, or "all" tokens of each.
        mlp_ratio, dropout: of the blocks.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        depth: int = 2,
        heads: int = 4,
        tokens: str = "pooled",
        *,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(modalities, dim)
        if tokens not in ("pooled", "all"):
            raise ValueError(f"tokens {tokens!r}; accepted: pooled, all")
        self.reads = "tokens" if tokens == "all" else "pooled"
        self.fusion_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.modality = nn.Parameter(torch.randn(len(self.modalities), dim) * 0.02)
        self.transformer = Transformer(dim, depth, heads, mlp_ratio, dropout)

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with tokens (B, 1 + N, D), the fusion token first; see `Fusion.forward`."""
        size = len(present)
        tokens = [self.fusion_token.expand(size, -1, -1)]
        mask = [present.new_ones(size, 1)]
        places: dict[str, tuple[Tensor, Tensor, int]] = {}

        # Each modality's rows go to their studies; the other studies get zeros that no query can see.
        for column, part, rows in self.in_order(encoded, present):
            own = part.tokens if self.reads == "tokens" else part.pooled.unsqueeze(1)
            real = part.mask if self.reads == "tokens" else part.mask.new_ones(len(rows), 1)
            places[self.modalities[column]] = (rows, real, sum(part.shape[1] for part in mask))
            own = torch.where(real.unsqueeze(-1), own + self.modality[column], 0.0)
            tokens.append(scatter(own, rows, size))
            mask.append(scatter(real, rows, size))

        seen = torch.cat(mask, dim=1)
        out = self.mixed(torch.cat(tokens, dim=1), seen, present)
        parts = {
            name: Encoded(out[rows, start : start + real.shape[1]], real, encoded[name].pooled)
            for name, (rows, real, start) in places.items()
        }
        return Fused(out, seen, out[:, 0], parts)

    def mixed(self, tokens: Tensor, seen: Tensor, present: Tensor) -> Tensor:
        """(B, 1 + N, D) after the transformer, from tokens of which those seen (B, 1 + N) are real; present: (B, M) bool."""
        return self.transformer(tokens, seen)
