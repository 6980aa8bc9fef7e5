"""Transfer by relations: studies lie to each other as the teacher has them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.losses import all_gather_rows
from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.transfer.base import Transfer

#: Below this squared distance two vectors are one, and neither a distance nor an angle has a gradient.
LEAST = 1e-12


class RelationTransfer(Transfer):
    """loss = d mean over pairs of huber(|s_i - s_j| / mu_s, |t_i - t_j| / mu_t) + a mean over triples of huber(cos_s, cos_t)

    over the studies of a batch that both see; mu is the mean distance of all pairs and cos_ijk the cosine of the angle at j
    between i and k. Distances and angles need no common space and no common width: nothing is regressed.

    [1] Park, Kim, Lu, Cho, Relational knowledge distillation, CVPR 2019: angles count twice as much as distances.

    Args:
        model: the student.
        source: modalities that are shown to the teacher.
        distance, angle: weights d and a of the two terms; 0 leaves one out.
        target: modalities that the student is shown; all of its own by default.
        weight: in the sum of objectives.

    Raises:
        ValueError: a weight below 0, or both 0.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        source: Sequence[str],
        distance: float = 1.0,
        angle: float = 2.0,
        target: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, source=source, target=target, weight=weight)
        if min(distance, angle) < 0 or distance + angle == 0:
            raise ValueError(f"distance is {distance} and angle {angle}; fix: 0 or above, and one of them above 0")
        self.distance, self.angle = distance, angle

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the two terms; no term where fewer than two studies are seen by both."""
        if self.count(step) < 2:
            return None
        student, teacher = (all_gather_rows(part) for part in self.vectors(step))
        with torch.autocast(student.device.type, enabled=False):
            apart = distance_loss(student, teacher)
            turned = angle_loss(student, teacher) if len(student) > 2 else apart.new_zeros(())
        loss = self.distance * apart * step.share(self._pairs) + self.angle * turned * step.share(self._triples)
        return {"loss": loss, "distance": apart.detach(), "angle": turned.detach()}

    def _pairs(self, step: Step) -> Tensor:
        count = self.count(step)
        return count * (count - 1)

    def _triples(self, step: Step) -> Tensor:
        return self._pairs(step) * (self.count(step) - 2).clamp(min=0)


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """() mean over ordered pairs of Huber of the distances, each over its mean; student (n, D), teacher (n, D'), n >= 2."""
    apart = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    s, t = (distances(part)[apart] for part in (student, teacher))
    s, t = (part / part.mean().clamp(min=LEAST**0.5) for part in (s, t))
    return F.smooth_l1_loss(s, t)


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """() mean over ordered triples of different studies of Huber of the cosines; student (n, D), teacher (n, D'), n >= 3."""
    n = len(student)
    same = torch.eye(n, dtype=torch.bool, device=student.device)
    triple = ~(same[:, :, None] | same[:, None, :] | same[None, :, :])
    return F.smooth_l1_loss(angles(student)[triple], angles(teacher)[triple])


def distances(x: Tensor) -> Tensor:
    """(n, n) Euclidean distances of x (n, D), with a gradient of 0 where they are 0."""
    squared = (x[:, None] - x[None, :]).square().sum(-1)
    return squared.clamp(min=LEAST).sqrt()


def angles(x: Tensor) -> Tensor:
    """(n, n, n) cosine of the angle at the first index between the second and the third, of x (n, D)."""
    toward = x[None, :] - x[:, None]
    unit = toward / toward.square().sum(-1, keepdim=True).clamp(min=LEAST).sqrt()
    return torch.einsum("jid,jkd->jik", unit, unit)
