"""Transfer by features: the student's vector says what the teacher's holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F

from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.transfer.base import Lesson, Transfer


class FeatureTransfer(Transfer):
    """loss = mean over studies that both see of  |W s - norm(t)|^2 / D'   (norm: mean 0, variance 1 over features)

    s and t are the fused vectors of student and teacher, W a linear regressor that is trained and thrown away: the hint of
    FitNets [1], with the last vector in the place of a middle layer, as the encoders of two modalities have no layers in common.

    [1] Romero et al., FitNets: hints for thin deep nets, ICLR 2015.

    Args:
        model: the student.
        source: modalities that are shown to the teacher.
        teacher_dim: D' of the teacher; the student's own by default.
        target: modalities that the student is shown; all of its own by default.
        weight: in the sum of objectives.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        source: Sequence[str],
        teacher_dim: int | None = None,
        target: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, source=source, target=target, weight=weight)
        self.regressor = nn.Linear(model.dim, model.dim if teacher_dim is None else teacher_dim)

    @classmethod
    def of(cls, student: MultimodalModel, lesson: Lesson) -> Self:
        """See `Transfer.of`."""
        return cls(student, source=lesson.source, teacher_dim=lesson.teacher.dim, weight=lesson.weight)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the mean cosine of prediction and target."""
        count = self.count(step)
        if count == 0:
            return None
        student, teacher = self.vectors(step)
        found = self.regressor(student).to(teacher.dtype)
        wanted = F.layer_norm(teacher, teacher.shape[1:])
        total = global_sum((found - wanted).square().mean(1).sum())
        cosine = global_sum(F.cosine_similarity(found.detach(), wanted, dim=1).sum())
        return {"loss": total / count * step.share(self.count), "cosine": cosine / count}
