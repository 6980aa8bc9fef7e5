"""Shared and specific features: what all modalities show of a study stands in for the one that is absent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, OwnLinear


class SharedSpecificFusion(Fusion):
    """h = W [f_1; ...; f_M] + b,   f_m = P [s_m; r_m] + s_m  where m is present,  the mean of s over what is present  where not

    s_m = S(x_m), a perceptron that all modalities share, says what any of them could show; r_m = R_m(x_m), one for each, what
    m alone does (ShaSpec, Wang et al. 2023). Absent modalities enter neither: the published code passes an image of zeros
    through the shared encoder. Of a study without anything a learned vector stands in the place of the mean. `Fused.extra` holds
    `shared` and `specific` (B, M, D), 0 where absent: what makes them so is the objective `SharedSpecific`.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. hidden: width of each perceptron; None for D.
    """

    reads = "pooled"
    keeps = ("shared", "specific")

    def __init__(self, modalities: Sequence[str], dim: int, hidden: int | None = None) -> None:
        super().__init__(modalities, dim)
        count, width = len(self.modalities), dim if hidden is None else hidden
        self.shared = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, dim))
        self.specific = nn.Sequential(OwnLinear(count, dim, width), nn.GELU(), OwnLinear(count, width, dim))
        self.both = nn.Linear(2 * dim, dim)
        self.nothing = nn.Parameter(torch.zeros(dim))
        self.join = nn.Linear(count * dim, dim)

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); see `Fusion.forward`."""
        table, there = self.table(encoded, present), present.unsqueeze(-1)
        shared = torch.where(there, self.shared(table), 0.0)
        specific = torch.where(there, self.specific(table), 0.0)

        # What is absent is what the others share.
        count = present.sum(1, keepdim=True)
        mean = torch.where(count > 0, shared.sum(1) / count.clamp(min=1), self.nothing)
        own = self.both(torch.cat([shared, specific], dim=-1)) + shared
        tokens = torch.where(there, own, mean.unsqueeze(1).to(own.dtype))
        return Fused(tokens, present, self.join(tokens.flatten(1)), extra={"shared": shared, "specific": specific})
