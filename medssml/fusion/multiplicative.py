"""Multiplicative fusion: a product of one factor for each modality that is there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, OwnLinear


class MultiplicativeFusion(Fusion):
    """h = product over present m of (W_m x_m + c_m), elementwise; the factor of an absent modality is 1.

    A modality turns up or down what the others say of a feature, as in multiplicative interactions (Jayakumar et al.
    2020). The offsets c_m begin at 1, so that a factor that says nothing is the one of an absent modality.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D.
    """

    reads = "pooled"

    def __init__(self, modalities: Sequence[str], dim: int) -> None:
        super().__init__(modalities, dim)
        self.factors = OwnLinear(len(self.modalities), dim, dim)
        nn.init.ones_(self.factors.bias)

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); a study without any is all ones; see `Fusion.forward`."""
        tokens = self.table(encoded, present)
        factors = torch.where(present.unsqueeze(-1), self.factors(tokens), 1.0)
        return Fused(tokens, present, factors.prod(1))
