"""Routing by pattern: learned vectors for what is absent, and experts chosen by what a study shows and has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, OwnLinear


class PatternRouting(Fusion):
    """h = b + sum over the k chosen experts of g_j E_j(z),   g = softmax over the k largest of G z + R r,   z = [z_1; ...; z_M]

    z_m = x_m where m is present; where it is absent, a learned vector e_m + sum over present n of c_nm: what is lacking, given
    what is there. r says which modalities are present, so that studies of a pattern find the same experts, whatever they show
    (Flex-MoE, Yun et al. 2024). There the bank of learned vectors has one for each modality and pattern; here they are sums, so
    that a pattern that training never showed has one as well. They are learned: one published network fills in zeros where
    its paper says otherwise. `Fused.extra` holds `gate` (B, experts), 0 for those not chosen.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. experts: how many; None for as many as modalities, and one more. chosen: k.
        hidden: width of each; None for D.

    Raises:
        ValueError: more experts are chosen than there are, or none.
    """

    reads = "pooled"
    keeps = ("gate",)

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        experts: int | None = None,
        chosen: int = 2,
        hidden: int | None = None,
    ) -> None:
        super().__init__(modalities, dim)
        size = len(self.modalities)
        count, width = size + 1 if experts is None else experts, dim if hidden is None else hidden
        if not 1 <= chosen <= count:
            raise ValueError(f"{chosen} of {count} experts are chosen; fix: at least 1, and at most all")
        self.chosen = chosen
        self.absent = nn.Parameter(torch.randn(size, dim) * 0.02)
        self.given = nn.Parameter(torch.zeros(size, size, dim))
        self.base = nn.Parameter(torch.zeros(dim))
        self.gate = nn.Linear(size * dim, count)
        self.pattern = nn.Linear(size, count, bias=False)
        self.experts = nn.Sequential(OwnLinear(count, size * dim, width), nn.GELU(), OwnLinear(count, width, dim))

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); see `Fusion.forward`."""
        table = self.table(encoded, present)
        there = present.to(table.dtype)

        # What is absent is a learned vector, given what is there.
        lacking = self.absent + torch.einsum("bn,nmd->bmd", there, self.given)
        tokens = torch.where(present.unsqueeze(-1), table, lacking.to(table.dtype))

        # The experts that a study of this pattern is sent to.
        joined = tokens.flatten(1)
        scores = self.gate(joined) + self.pattern(there)
        best, who = scores.topk(self.chosen, dim=1)
        gate = torch.zeros_like(scores).scatter(1, who, best.softmax(1).to(scores.dtype))
        answers = self.experts(joined.unsqueeze(1).expand(-1, scores.shape[1], -1))
        pooled = self.base + (gate.unsqueeze(-1) * answers).sum(1)
        return Fused(tokens, present, pooled, extra={"gate": gate})
