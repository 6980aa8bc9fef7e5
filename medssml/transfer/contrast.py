"""Transfer by contrast: the student's vector of a study finds the teacher's among those of other studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.losses import all_gather_rows, count_terms, info_nce
from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.transfer.base import Lesson, Transfer


class ContrastiveTransfer(Transfer):
    """loss = InfoNCE(unit(W s), unit(V t)), both ways, over the studies of all ranks that both see

    Contrastive representation distillation [1] with the other studies of the batch as negatives in place of a memory of all
    training studies: a lower bound on what the two vectors have in common. W and V are linear and trained. Studies of one
    subject, and studies that share an identical input of the student, are not each other's negatives.

    [1] Tian, Krishnan, Isola, Contrastive representation distillation, ICLR 2020: temperature 0.07, 128 dimensions.

    Args:
        model: the student.
        source: modalities that are shown to the teacher.
        teacher_dim: D' of the teacher; the student's own by default.
        dim: of the space of the contrast.
        temperature: of the softmax, fixed.
        target: modalities that the student is shown; all of its own by default.
        weight: in the sum of objectives.

    Raises:
        ValueError: a temperature that is not positive.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        source: Sequence[str],
        teacher_dim: int | None = None,
        dim: int = 128,
        temperature: float = 0.07,
        target: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, source=source, target=target, weight=weight)
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; fix: a positive number")
        self.temperature = temperature
        self.student_head = nn.Linear(model.dim, dim)
        self.teacher_head = nn.Linear(model.dim if teacher_dim is None else teacher_dim, dim)

    @classmethod
    def of(cls, student: MultimodalModel, lesson: Lesson) -> Self:
        """See `Transfer.of`."""
        return cls(student, source=lesson.source, teacher_dim=lesson.teacher.dim, weight=lesson.weight)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the share of studies whose own vector is the nearest; no term where there is no negative."""
        match, exclude = self._masks(step)
        if count_terms(match, exclude) == 0:
            return None
        student, teacher = self.vectors(step)
        a, b = (
            all_gather_rows(_unit(head(x))) for head, x in ((self.student_head, student), (self.teacher_head, teacher))
        )
        found = info_nce(a, b, scale=1 / self.temperature, match=match, exclude=exclude)
        return {"loss": found.total / found.terms * step.share(self._terms), "accuracy": found.correct / found.terms}

    def _masks(self, step: Step) -> tuple[Tensor, Tensor]:
        """(n, n) bool each, of the studies of all ranks that both see: who belongs together, and who is no negative."""
        rows = all_gather_rows(self.both(step).long()).nonzero().squeeze(1)
        shown = step.model.modalities if self.target is None else self.target
        columns = [step.model.modalities.index(name) for name in shown]
        return torch.eye(len(rows), dtype=torch.bool, device=rows.device), step.everyone.alike(rows, rows, columns)

    def _terms(self, step: Step) -> Tensor:
        return count_terms(*self._masks(step))


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)
