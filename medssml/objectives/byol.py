"""BYOL: from one look at a study, what a teacher that follows the student says of the other; no negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.spaces import NormedHead


class BYOL(Objective):
    """loss = d(q(z1), z2') + d(q(z2), z1'),   d(q, z) = mean over studies of  |q / |q| - z / |z||^2 = 2 - 2 cos(q, z)

    z are the student's projections of two looks, q its prediction head, z' the projections of the teacher, a running mean of
    model and projection, which get no gradient. Computed within each modality; every study of every modality counts the
    same. Without negatives, studies of one subject and identical inputs need no care; the prediction head and the teacher
    keep all studies from becoming the same.

    [1] Grill et al., Bootstrap your own latent: a new approach to self-supervised learning, NeurIPS 2020.

    Args:
        model: the model.
        modalities: of which; all by default.
        dim, hidden: of projection and prediction; 256 and 4096 as in the paper.
        momentum: of the teacher; by default from 0.996 to 1 along a cosine, as in the paper.
        weight: in the sum of objectives.
    """

    views = 2

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        dim: int = 256,
        hidden: int = 4096,
        momentum: float | Ramp | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        self.teacher = Ramp(0.996, 1.0, shape="cosine") if momentum is None else momentum
        names = chosen(model, modalities, "BYOL")
        self.project = nn.ModuleDict({name: NormedHead(model.dim, hidden, dim) for name in names})
        self.predict = nn.ModuleDict({name: NormedHead(dim, hidden, dim) for name in names})

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and per modality the cosine of prediction and target."""
        count = self._count(step)
        if count == 0:
            return None
        found = {name: self._cosines(step, name) for name in self.project}
        total = torch.stack([(2 - 2 * cosines).sum() for cosines in found.values()]).sum()
        out = {"loss": total / count * step.share(self._count)}
        return out | {f"cosine_{name}": part.detach().mean() for name, part in found.items() if len(part) > 0}

    def _cosines(self, step: Step, name: str) -> Tensor:
        """(2 n,) of both directions of one modality, of the studies of all ranks."""
        twin = cast(BYOL, step.twin(self))
        with torch.no_grad():
            targets = [twin.project[name](view.pooled_of_all(name)) for view in step.teacher.views[:2]]
        looks = [self.predict[name](self.project[name](view.pooled_of_all(name))) for view in step.views[:2]]
        both = zip(looks, reversed(targets), strict=True)
        return torch.cat([F.cosine_similarity(_wide(q), _wide(z), dim=1) for q, z in both])

    def _count(self, step: Step) -> Tensor:
        present = step.everyone.present
        return torch.stack([present[:, step.model.modalities.index(name)].sum() for name in self.project]).sum()


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
