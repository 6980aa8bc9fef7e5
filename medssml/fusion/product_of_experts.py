"""Product of experts: each modality says where the study lies and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, OwnLinear

#: Added to every variance, so that no expert is ever certain.
EPSILON = 1e-8


class ProductOfExperts(Fusion):
    """mean = sum over present m of T_m mu_m / (1 + sum of T_m),  T_m = 1 / sigma_m^2,  [mu_m; log sigma_m^2] = W_m x_m + b_m

    The product of normal densities N(mu_m, sigma_m^2) and of the prior N(0, 1), which is an expert like any other (Hinton
    2002; MVAE, Wu and Goodman 2018). What is surer counts more, one more modality never makes less sure, and an absent one
    is no factor: of a study without anything the prior is left. `pooled` is the mean; losses find `mean` and
    `log_variance` (B, D) in `Fused.extra`.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D.
    """

    reads = "pooled"
    keeps = ("mean", "log_variance")

    def __init__(self, modalities: Sequence[str], dim: int) -> None:
        super().__init__(modalities, dim)
        self.experts = OwnLinear(len(self.modalities), dim, 2 * dim)

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); see `Fusion.forward`."""
        tokens = self.table(encoded, present)
        said = self.experts(tokens)
        mean, log_variance = said.to(torch.promote_types(said.dtype, torch.float32)).chunk(2, dim=-1)
        precision = torch.where(present.unsqueeze(-1), 1 / (log_variance.exp() + EPSILON), 0.0)
        total = 1 + precision.sum(1)
        pooled = (precision * mean).sum(1) / total
        return Fused(tokens, present, pooled, extra={"mean": pooled, "log_variance": -total.log()})
