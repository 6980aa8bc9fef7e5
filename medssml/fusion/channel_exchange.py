"""Channel exchange: a channel that a modality does not need carries what the others say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion
from medssml.layers import masked_softmax


class ChannelExchange(Fusion):
    """`depth` times for each present m (CEN, Wang et al. 2020), with one W for all modalities and gamma, beta of its own:

        y_m  = norm(W x_m) * gamma_m + beta_m
        y_mc = mean over the other present n of y_nc,  for each channel c with |gamma_mc| < threshold
        x_m  = x_m + relu(y_m)

    h = sum over present m of a_m x_m, with a the softmax of M learned numbers over what is there; a learned vector where
    nothing is. A modality that is alone keeps its own channels. The norm is over the channels of a study (LayerNorm) where
    the paper takes that of a batch, in which studies would see each other.

    What makes a gamma small is the L1 norm of gamma_m over the part of the channels that is m's to give, c = mM/D ..
    (m+1)M/D - 1, so that no channel is exchanged in both directions. It is `penalty` in `Fused.extra`; the objective
    `FusionPenalty` learns it. Without it nothing is exchanged.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. depth: layers. threshold: of |gamma|; 0.02 in the paper for segmentation, with a weight of 2e-4.
    """

    reads = "pooled"
    keeps = ("penalty",)
    own_part: Tensor

    def __init__(self, modalities: Sequence[str], dim: int, depth: int = 2, threshold: float = 0.02) -> None:
        super().__init__(modalities, dim)
        self.threshold = threshold
        count = len(self.modalities)
        self.shared = nn.ModuleList([nn.Linear(dim, dim, bias=False) for _ in range(depth)])
        self.scale = nn.ParameterList([nn.Parameter(torch.ones(count, dim)) for _ in range(depth)])
        self.shift = nn.ParameterList([nn.Parameter(torch.zeros(count, dim)) for _ in range(depth)])
        self.share = nn.Parameter(torch.zeros(count))
        self.nothing = nn.Parameter(torch.randn(dim) * 0.02)
        own = (torch.arange(dim) * count // dim) == torch.arange(count)[:, None]
        self.register_buffer("own_part", own, persistent=False)

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D), after the exchange; see `Fusion.forward`."""
        there = present.unsqueeze(-1)
        x = self.table(encoded, present)
        for shared, scale, shift in zip(self.shared, self.scale, self.shift, strict=True):
            y = F.layer_norm(shared(x), (self.dim,)) * scale + shift
            x = torch.where(there, x + exchanged(y, scale.abs() < self.threshold, present).relu(), 0.0)
        weights = masked_softmax(self.share.expand(len(present), -1), present)
        pooled = torch.where(present.any(1, keepdim=True), (weights.unsqueeze(-1) * x).sum(1), self.nothing)
        return Fused(x, present, pooled, extra={"penalty": self.penalty()})

    def penalty(self) -> Tensor:
        """The L1 norm of the gammas that are to become small."""
        return torch.stack([scale.abs()[self.own_part].sum() for scale in self.scale]).sum()


def exchanged(y: Tensor, given_up: Tensor, present: Tensor) -> Tensor:
    """(B, M, D) y, where channels that are given_up (M, D) are the mean of the other present modalities' (present (B, M)).

    Where no other is present they stay.
    """
    there = present.unsqueeze(-1)
    others = torch.where(there, y, 0.0).sum(1, keepdim=True) - torch.where(there, y, 0.0)
    count = present.sum(1, keepdim=True) - present.long()
    mean = others / count.clamp(min=1).unsqueeze(-1)
    return torch.where(given_up & (count > 0).unsqueeze(-1), mean, y)
