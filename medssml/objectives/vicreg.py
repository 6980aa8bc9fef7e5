"""VICReg: two looks at a study agree, while features vary and do not repeat each other; no negatives, no teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.losses import VICRegTerms, vicreg_terms
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.spaces import NormedHead


class VICReg(Objective):
    """loss = mean over modalities of  l * |a - b|^2 / D + m * [v(a) + v(b)] / 2 + n * [c(a) + c(b)]

        v(z) = mean over features of max(0, 1 - sd(z_d)),   c(z) = sum over d != e of cov(z_d, z_e)^2 / D

    a and b (n, D) are the expanded pooled vectors of two looks at the studies of all ranks that have a modality. v keeps the
    features from collapsing and c from saying the same; nothing is pushed apart, so studies of one subject and identical
    inputs need no care. Of the published code: v is halved, where equation 6 of the paper adds both.

    [1] Bardes, Ponce, LeCun, VICReg: variance-invariance-covariance regularization for self-supervised learning, ICLR 2022.

    Args:
        model: the model.
        modalities: of which; all by default. One whose transforms draw nothing learns only v and c.
        dim: D of the expander, three layers of that width; 8192 as in the paper.
        invariance, variance, covariance: l, m, n; 25, 25, 1 as in the paper.
        weight: in the sum of objectives.

    Raises:
        ValueError: a negative l, m or n.
    """

    views = 2

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        dim: int = 8192,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        self.shares = (invariance, variance, covariance)
        if min(self.shares) < 0:
            raise ValueError(f"VICReg: invariance, variance, covariance are {self.shares}; fix: none below 0")
        names = chosen(model, modalities, "VICReg")
        self.expanders = nn.ModuleDict({name: NormedHead(model.dim, dim, dim, layers=3) for name in names})

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and per modality the mean standard deviation of a feature, which falls to 0 in a collapse."""
        found = {name: self._terms(step, name) for name in self.expanders}
        defined = {name: terms for name, terms in found.items() if terms is not None}
        if not defined:
            return None
        zero = next(iter(defined.values())).variance.new_zeros(())
        sums = [zero if terms is None else self._sum(terms) for terms in found.values()]
        loss = step.mean_of_means(torch.stack(sums), self._counts)
        return {"loss": loss, **{f"spread_{name}": terms.spread for name, terms in defined.items()}}

    def _terms(self, step: Step, name: str) -> VICRegTerms | None:
        # Every rank asks for the rows of every modality, also where it has none.
        first, second = (view.pooled_of_all(name) for view in step.views[:2])
        if len(first) < 2:
            return None
        return vicreg_terms(self.expanders[name](first), self.expanders[name](second))

    def _sum(self, terms: VICRegTerms) -> Tensor:
        return sum(share * term for share, term in zip(self.shares, terms[:3], strict=True))  # type: ignore[return-value]

    def _counts(self, step: Step) -> Tensor:
        """(modalities,) studies of all ranks that have each; a single one has no statistics."""
        present = step.everyone.present.sum(0)
        counts = torch.stack([present[step.model.modalities.index(name)] for name in self.expanders])
        return torch.where(counts > 1, counts, 0)
