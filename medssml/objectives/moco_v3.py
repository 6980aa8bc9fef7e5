"""MoCo v3: one look at a study, seen by the student, finds the other look, seen by a momentum teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.losses.info_nce import InfoNCE, cosine_logits, cross_entropy_terms
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen, mean_of_terms
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.spaces import ProjectionHead, SharedSpace


class MoCoV3(Objective):
    """loss = ctr(q1, k2) + ctr(q2, k1),  ctr(q, k) = 2 t * mean over studies of -log softmax over studies of (q . k / t)

    q is the prediction head on the student's projection of one look, k the teacher's projection of the other. The teacher,
    a running mean of model and projection, gets no gradient; there is no queue. Computed within each modality; every study
    of every modality counts the same. Studies of one subject, and identical inputs, are no negatives.

    [1] Chen, Xie, He, An empirical study of training self-supervised vision transformers, ICCV 2021, algorithm 1.

    Args:
        model: the model.
        modalities: of which; all by default.
        dim: of the projection. temperature: t; 0.2 as in the paper.
        momentum: of the teacher; by default from 0.99 to 1 along a cosine, as in the paper.
        batch_norm: before the projection, of all modalities or of those named.
        weight: in the sum of objectives.
    """

    views = 2

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        dim: int = 128,
        temperature: float = 0.2,
        momentum: float | Ramp | None = None,
        batch_norm: bool | Sequence[str] = True,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        self.teacher = Ramp(0.99, 1.0, shape="cosine") if momentum is None else momentum
        self.temperature = temperature
        self.space = SharedSpace(model.dim, dim, chosen(model, modalities, "MoCoV3"), batch_norm)
        self.predict = nn.ModuleDict({name: ProjectionHead(dim, dim) for name in self.space.modalities})

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and per modality the share of studies whose nearest key is their own."""
        found = {name: self._contrast(step, name) for name in self.space.modalities}
        # Two directions, of which the terms hold both: their sum is twice their mean.
        return mean_of_terms(found, step, self._count, factor=2 * 2 * self.temperature)

    def _contrast(self, step: Step, name: str) -> InfoNCE:
        """Both directions of one modality."""
        student, teacher = step.views[:2], step.teacher.views[:2]
        space: SharedSpace = step.twin(self).space  # type: ignore[assignment, union-attr]
        with torch.no_grad():
            keys = [space(name, view.pooled_of_all(name)) for view in teacher]
        queries = [self.predict[name](self.space(name, view.pooled_of_all(name))) for view in student]
        match, negative = self._masks(step, name)
        parts = [
            cross_entropy_terms(cosine_logits(query, key, 1 / self.temperature), match, negative)
            for query, key in zip(queries, reversed(keys), strict=True)
        ]
        return InfoNCE(*(a + b for a, b in zip(*parts, strict=True)))

    def _masks(self, step: Step, name: str) -> tuple[Tensor, Tensor]:
        alike = step.alike(name)
        own = torch.eye(len(alike), dtype=torch.bool, device=alike.device)
        return own, ~(own | alike)

    def _count(self, step: Step) -> Tensor:
        return torch.stack([2 * self._masks(step, name)[1].any(1).sum() for name in self.space.modalities]).sum()
