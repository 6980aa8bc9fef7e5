"""Graph attention: modalities are the nodes of a graph, and each listens to those that are there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion
from medssml.layers import masked_softmax

#: Slope of the scores below zero, as published.
SLOPE = 0.2


class GraphAttention(Fusion):
    """`depth` times, head by head (GAT, Velickovic et al. 2018), over the complete graph of the present modalities:

        a_mn = softmax over present n of  leaky_relu(u' W x_m + v' W x_n)        n = m among them
        x_m  = x_m + elu(sum over present n of a_mn W x_n)

    It begins with x_m + e_m, e_m a learned vector of each modality; h is the mean of the present nodes, and a learned vector
    where there is none. An absent modality has no node and no edge.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. depth: layers. heads: of the attention, each D / heads wide.

    Raises:
        ValueError: dim is no multiple of heads.
    """

    reads = "pooled"

    def __init__(self, modalities: Sequence[str], dim: int, depth: int = 2, heads: int = 4) -> None:
        super().__init__(modalities, dim)
        self.node = nn.Parameter(torch.randn(len(self.modalities), dim) * 0.02)
        self.nothing = nn.Parameter(torch.randn(dim) * 0.02)
        self.layers = nn.ModuleList([_GraphLayer(dim, heads) for _ in range(depth)])

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D), the nodes; see `Fusion.forward`."""
        there = present.unsqueeze(-1)
        x = torch.where(there, self.table(encoded, present) + self.node, 0.0)
        for layer in self.layers:
            x = torch.where(there, layer(x, present), 0.0)
        count = present.sum(1, keepdim=True)
        return Fused(x, present, torch.where(count > 0, x.sum(1) / count.clamp(min=1), self.nothing))


class _GraphLayer(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads != 0:
            raise ValueError(f"dim {dim} is no multiple of heads {heads}")
        self.heads = heads
        self.linear = nn.Linear(dim, dim, bias=False)
        self.listens = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, dim // heads)))
        self.speaks = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, dim // heads)))

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """(B, M, D) from nodes x (B, M, D); present (B, M) bool."""
        values = self.linear(x).unflatten(-1, (self.heads, -1))
        listens, speaks = ((values * vector).sum(-1).transpose(1, 2) for vector in (self.listens, self.speaks))
        scores = F.leaky_relu(listens.unsqueeze(-1) + speaks.unsqueeze(-2), SLOPE)  # (B, heads, M, M)
        weights = masked_softmax(scores, present[:, None, None, :].expand_as(scores))
        heard = torch.einsum("bhmn,bnhd->bmhd", weights.to(values.dtype), values).flatten(2)
        return x + F.elu(heard)
