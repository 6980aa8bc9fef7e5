"""Deep canonical correlation analysis: two modalities of a study are made to correlate as much as they can."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.losses import canonical_correlations
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Ramp
from medssml.objectives.pairs import Pair, modalities_of, pairs_of, sides_of
from medssml.objectives.step import Step
from medssml.spaces import ProjectionHead


class DCCA(Objective):
    """loss = mean over pairs (m, n) of modalities of  D - sum over i of s_i(T_mn),   T = S_mm^(-1/2) S_mn S_nn^(-1/2)

    The S are the covariances of the heads' outputs (D features) over the studies of all ranks that have both, S_mm and S_nn with
    r on the diagonal; the s_i, singular values of T, are the canonical correlations, each from 0 to 1. Andrew et al. [1]
    maximise their sum, the nuclear norm of T; here it is counted from D, so that 0 is a perfect agreement. Each feature has
    unit variance and correlates with no other by construction, so nothing can collapse and there are no negatives.

    [1] Andrew, Arora, Bilmes, Livescu, Deep canonical correlation analysis, ICML 2013.

    Args:
        model: the model.
        pairs: such as ["ct+report"]; all by default.
        modalities: all pairs of these, in the place of `pairs`.
        dim: D. A batch must hold several times as many studies with both, or they correlate by chance.
        regulariser: r; to be chosen for the data. 1e-3 of features that begin with a variance near 1 (code of the field).
        weight: in the sum of objectives.

    Raises:
        ValueError: r is not above 0; no pair.
    """

    across = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        pairs: Sequence[str] | None = None,
        modalities: Sequence[str] | None = None,
        dim: int = 10,
        regulariser: float = 1e-3,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if not regulariser > 0:
            raise ValueError(
                f"DCCA: regulariser is {regulariser}; fix: above 0, so that fewer studies than features are defined"
            )
        names = chosen(model, modalities, "DCCA")
        self.pairs = pairs_of(names, pairs, "DCCA")
        self.dim, self.regulariser = dim, regulariser
        # No last bias: correlations are of what differs from the mean.
        self.heads = nn.ModuleDict(
            {name: ProjectionHead(model.dim, dim, bias=False) for name in modalities_of(self.pairs, names)}
        )

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the mean correlation of each pair."""
        counts = self._counts(step)
        # Every rank asks for the rows of every modality, also where it has none.
        vectors = {name: head(step.pooled_of_all(name)) for name, head in self.heads.items()}
        if not bool((counts > 0).any()):
            return None
        zero = next(iter(vectors.values())).new_zeros((), dtype=torch.float32)
        found = {
            pair: self._correlations(step, vectors, pair)
            for pair, count in zip(self.pairs, counts, strict=True)
            if count > 0
        }
        means = [self.dim - found[pair].sum() if pair in found else zero for pair in self.pairs]
        logged = {f"correlation_{a}+{b}": s.detach().mean() for (a, b), s in found.items()}
        return {"loss": step.mean_of_means(torch.stack(means), self._counts), **logged}

    def _correlations(self, step: Step, vectors: dict[str, Tensor], pair: Pair) -> Tensor:
        partner = sides_of(step, pair).partner
        a, b = vectors[pair[0]][partner >= 0], vectors[pair[1]][partner[partner >= 0]]
        return canonical_correlations(a, b, regulariser=self.regulariser)

    def _counts(self, step: Step) -> Tensor:
        """(pairs,) studies of all ranks that have both, 0 where it is a single one."""
        sizes = torch.stack([(sides_of(step, pair).partner >= 0).sum() for pair in self.pairs])
        return torch.where(sizes > 1, sizes, 0)
