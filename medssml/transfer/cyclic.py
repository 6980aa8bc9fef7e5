"""Transfer by cyclic translation: from the student's vector the teacher's is made, and from what was made the student's again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.cyclic_translation import translation_error
from medssml.objectives.step import Step
from medssml.spaces import ProjectionHead
from medssml.transfer.base import Lesson, Transfer


class CyclicTransfer(Transfer):
    """loss = mean over studies that both see of  a |F(s) - norm(t)|^2 / D' + b |G(F(s)) - norm(s)|^2 / D

    s and t are the fused vectors of student and teacher, norm takes mean and variance over features and no gradient. F
    translates the poor modality into the rich one, G translates back what F made; s alone is used at test [1]. What
    `CyclicTranslation` does between modalities of one model is done here between two, of which the teacher does not learn.
    Beside `FeatureTransfer` the way there is bent, and what is made has to keep what s holds.

    [1] Pham et al., Found in translation: learning robust joint representations by cyclic translations between modalities,
    AAAI 2019 (MCTN), of sequences; here of one vector per study.

    Args:
        model: the student.
        source: modalities that are shown to the teacher.
        teacher_dim: D' of the teacher; the student's own by default.
        translation, cycle: a and b, equal as in the reference code.
        target: modalities that the student is shown; all of its own by default.
        weight: in the sum of objectives.

    Raises:
        ValueError: shares below 0.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        source: Sequence[str],
        teacher_dim: int | None = None,
        translation: float = 1.0,
        cycle: float = 1.0,
        target: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, source=source, target=target, weight=weight)
        if min(translation, cycle) < 0:
            raise ValueError(f"translation is {translation} and cycle {cycle}; fix: none below 0")
        self.translation, self.cycle = translation, cycle
        width = model.dim if teacher_dim is None else teacher_dim
        self.there = ProjectionHead(model.dim, width)
        self.back = ProjectionHead(width, model.dim)

    @classmethod
    def of(cls, student: MultimodalModel, lesson: Lesson) -> Self:
        """See `Transfer.of`."""
        return cls(student, source=lesson.source, teacher_dim=lesson.teacher.dim, weight=lesson.weight)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the two errors; 1 is that of an answer that knows nothing."""
        count = self.count(step)
        if count == 0:
            return None
        student, teacher = self.vectors(step)
        made = self.there(student)
        errors = (translation_error(made, teacher), translation_error(self.back(made), student))
        there, back = global_sum(torch.stack([each.sum() for each in errors])) / count
        loss = (self.translation * there + self.cycle * back) * step.share(self.count)
        return {"loss": loss, "translation": there.detach(), "cycle": back.detach()}
