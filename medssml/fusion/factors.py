"""Factor fusion: modalities measure the same few factors of a study, each with a precision of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Evidence, Fusion, OwnLinear

#: K, if nothing else is said.
FACTORS = 8


class FactorFusion(Fusion):
    """h = U s + MLP([s v; v]),  s = sum over present m of t_m e_m,  v = 1 / (1 + sum over present m of t_m)

    e_m = W_m x_m + c_m measures K factors, and t_m = softplus(u_m), K numbers that are learned, are the precisions of modality
    m. Of standard normal factors of which each modality that is there gives one noisy measurement, s v and v are the posterior
    mean and variance (factor analysis, Thomson's scores; a product of experts whose precisions do not depend on the study,
    Hinton 2002). An absent modality measures nothing: the mean moves towards the prior and v grows, so answers can become less
    sure by as much as is known less. The sum s is for log odds, which add up where modalities are independent evidence; the
    perceptron finds what several factors say together. An interaction of two modalities is so learned once,
    from any studies, not for every subset, and the narrow middle keeps it from learning studies by heart.

    Where heads begin as probes (`probe_first`), the first factors are the tasks: each is measured by the probes of the
    modalities; see `begin`.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D, of inputs and output.
        factors: K, at most D; None = 8, or D where that is less.
        hidden: width of the perceptron.
    """

    reads = "pooled"
    keeps = ("mean", "variance")

    def __init__(self, modalities: Sequence[str], dim: int, factors: int | None = None, hidden: int = 32) -> None:
        super().__init__(modalities, dim)
        factors = min(FACTORS, dim) if factors is None else factors
        if not 1 <= factors <= dim:
            raise ValueError(f"factors: {factors}; fix: 1 to {dim}, the width of the fusion")
        self.room = factors
        self.measure = OwnLinear(len(self.modalities), dim, factors)
        self.precision = nn.Parameter(torch.zeros(len(self.modalities), factors))
        self.linear = nn.Linear(factors, dim)
        self.together = nn.Sequential(nn.Linear(2 * factors, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); see `Fusion.forward`. extra: `mean`, `variance` (B, K)."""
        tokens = self.table(encoded, present)
        measured = self.measure(tokens)
        precision = torch.where(present.unsqueeze(-1), nn.functional.softplus(self.precision), 0.0)
        said = (precision * measured).sum(1)
        variance = 1 / (1 + precision.sum(1))
        mean = said * variance
        pooled = self.linear(said) + self.together(torch.cat([mean, variance], dim=-1))
        return Fused(tokens, present, pooled, extra={"mean": mean, "variance": variance})

    @torch.no_grad()
    def begin(self, evidence: Sequence[Mapping[str, Evidence]]) -> None:
        """Factor k measures evidence k, and the perceptron is at 0; see `Fusion.begin`."""
        if len(evidence) > self.room:
            super().begin(evidence)
        for parameter in (self.precision, *self.linear.parameters(), *self.together[2].parameters()):
            parameter.zero_()
        at_first = nn.functional.softplus(self.precision[0, 0])
        for k, maps in enumerate(evidence):
            self.linear.weight[k, k] = 1.0
            for column, name in enumerate(self.modalities):
                weight, bias = maps.get(name, (0.0, 0.0))
                self.measure.weight[column, :, k] = torch.as_tensor(weight) / at_first
                self.measure.bias[column, k] = torch.as_tensor(bias) / at_first
