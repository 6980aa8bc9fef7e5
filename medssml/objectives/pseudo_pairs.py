"""Pseudo-pairs: studies that share no modality are matched by optimal transport, or as each other's nearest, and contrasted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.losses import transport
from medssml.losses.info_nce import cosine_logits
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.spaces import SharedSpace


class PseudoPairs(Objective):
    """loss = mean over terms of  -sum over j of T_ij log softmax over j of (cos(z_i, z_j) / t), both ways, over pairs (m, n)

    i are the studies with m and without n, j those with n and without m, of all ranks. T, without gradient, says who might
    belong to whom: the rows (and columns) of the optimal transport plan at the cost 1 - cos, so that nobody is matched by all;
    or 1 for those that are each other's nearest, of which alone there are terms then. Studies that have both are left to
    objectives that know them as pairs; beside some of these the matches are worth something, alone they begin at chance.

    [1] Cuturi, Sinkhorn distances, NeurIPS 2013. [2] Asano, Rupprecht, Vedaldi, Self-labelling via simultaneous clustering and
    representation learning, ICLR 2020, for targets by transport. No one paper has this objective.

    Args:
        model: the model.
        modalities: of which; all by default.
        match: "transport" or "mutual", each other's nearest.
        epsilon: of the transport. iterations: of it.
        dim: of the space. temperature: t.
        batch_norm: before the projection, of all modalities or of those named.
        weight: in the sum of objectives; a `Ramp` from 0 lets true pairs come first.

    Raises:
        ValueError: fewer than two modalities, or an unknown way to match.
    """

    across = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        match: Literal["transport", "mutual"] = "transport",
        epsilon: float = 0.05,
        iterations: int = 50,
        dim: int = 128,
        temperature: float = 0.1,
        batch_norm: bool | Sequence[str] = True,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if match not in ("transport", "mutual"):
            raise ValueError(f"match is {match!r}; accepted: transport, mutual")
        names = chosen(model, modalities, "PseudoPairs")
        if len(names) < 2:
            raise ValueError(f"PseudoPairs needs two modalities; it has {list(names)}")
        self.match, self.epsilon, self.iterations, self.temperature = match, epsilon, iterations, temperature
        self.pairs = tuple(combinations(names, 2))
        self.space = SharedSpace(model.dim, dim, names, batch_norm)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the mean cosine of those that are matched."""
        vectors = {name: self.space(name, step.pooled_of_all(name)) for name in self.space.modalities}
        if self._count(step) == 0:
            return None
        total, terms, near = [], [], []
        for pair in self.pairs:
            a, b = self._rows(step, *pair)
            if min(len(a), len(b)) < 2:
                continue
            cosines = cosine_logits(vectors[pair[0]][a], vectors[pair[1]][b], 1.0)
            plan = self._plan(cosines.detach())
            near.append((plan * cosines.detach()).sum() / plan.sum().clamp(min=1e-12))
            for logits, target in ((cosines, plan), (cosines.T, plan.T)):
                asked = target.sum(1) > 0
                wanted = F.normalize(target[asked], p=1, dim=1)
                total.append(-(wanted * (logits[asked] / self.temperature).log_softmax(1)).sum())
                terms.append(asked.sum())
        mean = torch.stack(total).sum() / torch.stack(terms).sum().clamp(min=1)
        return {"loss": mean * step.share(self._count), "cosine": torch.stack(near).mean()}

    def _plan(self, cosines: Tensor) -> Tensor:
        """(Na, Nb) who might belong to whom."""
        if self.match == "transport":
            return transport(1 - cosines, epsilon=self.epsilon, iterations=self.iterations)
        best = cosines == cosines.amax(1, keepdim=True)
        return (best & (cosines == cosines.amax(0, keepdim=True))).to(cosines.dtype)

    def _rows(self, step: Step, m: str, n: str) -> tuple[Tensor, Tensor]:
        """Where the studies with one modality alone stand among all that have it."""
        has, other = (step.everyone.present[:, step.model.modalities.index(name)] for name in (m, n))
        return (~other)[has].nonzero().squeeze(1), (~has)[other].nonzero().squeeze(1)

    def _count(self, step: Step) -> Tensor:
        """() studies that might be matched, of all ranks and pairs of modalities."""
        sizes = [[len(rows) for rows in self._rows(step, *pair)] for pair in self.pairs]
        return torch.tensor(sum(sum(both) for both in sizes if min(both) > 1), device=step.present.device)
