"""Gated fusion: each modality passes through the gates that the others set for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, OwnLinear

#: Of the gates' offsets at first: sigmoid(2) = 0.88, nearly open.
OPEN = 2.0


class GatedFusion(Fusion):
    """h = b + sum over present m of x_m * product over present n other than m of sigmoid(W_nm x_n + c_nm)

    With two modalities each term is x_1 * sigmoid(W x_2), as in gated multimodal units (Arevalo et al. 2017). The gate of
    an absent modality is 1: one that is alone passes as it is.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D.
    """

    reads = "pooled"

    def __init__(self, modalities: Sequence[str], dim: int) -> None:
        super().__init__(modalities, dim)
        self.base = nn.Parameter(torch.zeros(dim))
        count = len(self.modalities)
        # Who opens gates, M - 1 for each of the M that pass through them.
        self.openers = [n for m in range(count) for n in range(count) if n != m]
        self.gates = OwnLinear(len(self.openers), dim, dim) if self.openers else None
        if self.gates is not None:
            nn.init.constant_(self.gates.bias, OPEN)

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); see `Fusion.forward`."""
        tokens = self.table(encoded, present)
        passed = tokens
        if self.gates is not None:
            gates = self.gates(tokens[:, self.openers]).sigmoid()
            gates = torch.where(present[:, self.openers].unsqueeze(-1), gates, 1.0)
            passed = tokens * gates.unflatten(1, (len(self.modalities), -1)).prod(2)
        return Fused(tokens, present, self.base + passed.sum(1))
