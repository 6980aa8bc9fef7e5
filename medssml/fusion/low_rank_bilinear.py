"""Low-rank bilinear fusion: what every two modalities say together, on top of what each says by itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, OwnLinear


class LowRankBilinear(Fusion):
    """h = b + sum over present m of x_m + P' sum over present pairs m < n of a_m * a_n,   a_m = tanh(U_m' x_m + c_m)

    The products are low-rank bilinear pooling (MLB, Kim et al. 2017), x_m' W_k x_n with W_k = U_m diag(P_k) U_n' but for the
    tanh, of every pair that is there; a pair of which one is absent adds nothing. All pairs cost as much as one sum:

        sum over pairs of a_m * a_n = ((sum of a_m)^2 - sum of a_m^2) / 2     (Rendle 2010)

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. width: of a_m, the rank of W_k; None for 2 D (1,200 in the paper).
    """

    reads = "pooled"

    def __init__(self, modalities: Sequence[str], dim: int, width: int | None = None) -> None:
        super().__init__(modalities, dim)
        rank = 2 * dim if width is None else width
        self.base = nn.Parameter(torch.zeros(dim))
        self.factors = OwnLinear(len(self.modalities), dim, rank)
        self.out = nn.Linear(rank, dim, bias=False)

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); see `Fusion.forward`."""
        tokens = self.table(encoded, present)
        factors = torch.where(present.unsqueeze(-1), self.factors(tokens).tanh(), 0.0)
        pairs = (factors.sum(1).square() - factors.square().sum(1)) / 2
        return Fused(tokens, present, self.base + tokens.sum(1) + self.out(pairs))
