"""Mixture of experts: a gate decides, study by study, whom of those that are there to believe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, OwnLinear
from medssml.layers import masked_softmax


class MixtureOfExperts(Fusion):
    """h = b + sum over present m of g_m f_m(x_m),  g = softmax over present m of (G [x_1; ...; x_M] + c)_m

    An expert f_m, a perceptron, for each modality, and one gate that sees all of them, an absent one as 0 (Jacobs et al.
    1991). The gate is a softmax over what is there: an absent expert has no weight, and one that is alone has all of it.
    `Fused.extra` holds `gate` (B, M), 0 where absent.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. hidden: width of each expert; None for 2 D.
    """

    reads = "pooled"
    keeps = ("gate",)

    def __init__(self, modalities: Sequence[str], dim: int, hidden: int | None = None) -> None:
        super().__init__(modalities, dim)
        count, width = len(self.modalities), 2 * dim if hidden is None else hidden
        self.base = nn.Parameter(torch.zeros(dim))
        self.experts = nn.Sequential(OwnLinear(count, dim, width), nn.GELU(), OwnLinear(count, width, dim))
        self.gate = nn.Linear(count * dim, count) if count > 1 else None

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); see `Fusion.forward`."""
        tokens = self.table(encoded, present)
        gate = present.to(tokens.dtype) if self.gate is None else masked_softmax(self.gate(tokens.flatten(1)), present)
        pooled = self.base + (gate.unsqueeze(-1) * self.experts(tokens)).sum(1)
        return Fused(tokens, present, pooled, extra={"gate": gate})
