"""Factor fusion: modalities measure the same few factors of a study, each with a precision of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, OwnLinear


class FactorFusion(Fusion):
    """mean = sum over present m of t_m e_m / (1 + sum of t_m),  v = 1 / (1 + sum of t_m),  e_m = W_m x_m + c_m

    h = U mean + MLP([mean; v]),  with t_m = softplus(u_m), K learned numbers of each modality

    A factor analysis whose factors are the few things that labels depend on: mean and v are the posterior of K standard
    normal factors given one noisy measurement of each by every modality that is there (Thomson's scores; a product of
    experts, Hinton 2002, whose precisions do not depend on the study). An absent modality measures nothing, so the mean moves
    towards the prior and v grows: answers can become less sure by as much as is known less. The perceptron finds what several
    factors say together (an interaction is learned once, from any studies, not for every subset of modalities), and the
    narrow middle keeps it from learning studies by heart.

    Where precisions depend on the study, as in `ProductOfExperts`, a few thousand studies teach it to be sure of noise.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D, of inputs and output.
        factors: K.
        hidden: width of the perceptron.
        dropout: of the inputs, in training.
    """

    reads = "pooled"
    keeps = ("mean", "variance")

    def __init__(
        self, modalities: Sequence[str], dim: int, factors: int = 8, hidden: int = 32, *, dropout: float = 0.3
    ) -> None:
        super().__init__(modalities, dim)
        if factors < 1:
            raise ValueError(f"factors: {factors}; fix: 1 or more")
        self.dropout = nn.Dropout(dropout)
        self.measure = OwnLinear(len(self.modalities), dim, factors)
        self.precision = nn.Parameter(torch.zeros(len(self.modalities), factors))
        self.linear = nn.Linear(factors, dim)
        self.together = nn.Sequential(nn.Linear(2 * factors, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); see `Fusion.forward`. extra: `mean`, `variance` (B, K)."""
        tokens = self.table(encoded, present)
        measured = self.measure(self.dropout(tokens))
        precision = torch.where(present.unsqueeze(-1), nn.functional.softplus(self.precision), 0.0)
        variance = 1 / (1 + precision.sum(1))
        mean = (precision * measured).sum(1) * variance
        pooled = self.linear(mean) + self.together(torch.cat([mean, variance], dim=-1))
        return Fused(tokens, present, pooled, extra={"mean": mean, "variance": variance})
