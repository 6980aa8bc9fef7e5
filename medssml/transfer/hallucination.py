"""Transfer by hallucination: a second branch of the student imagines the teacher's vector, and both branches answer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn

from medssml.encoders.hallucinating import HallucinatingEncoder
from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.standardise import Standardise
from medssml.transfer.base import Lesson, Transfer


class HallucinationTransfer(Transfer):
    """loss = mean over studies that both see of  |sigmoid(h) - sigmoid(norm(t))|^2    (norm: mean 0, variance 1 over features)

    h are the last D' features that the student's encoder gives, those of its second branch (`HallucinatingEncoder`), t is the
    teacher's vector. At test the second branch stands in for the modality that is not there, beside the first: the paper's sum
    of two networks' answers. Of its five losses of labels that of the joint answer is kept, which is the student's own. The
    student alone has the second branch, too, without anybody who says what to imagine: the paper's control, two networks of
    the poor modality.

    [1] Hoffman, Gupta, Darrell, Learning with side information through modality hallucination, CVPR 2016, equation 1.

    Args:
        model: the student, made by `prepare`.
        source: modalities that are shown to the teacher.
        width: D' of the teacher; the student's own by default.
        target: the modality that the student is shown; its only one by default.
        weight: in the sum of objectives.

    Raises:
        ValueError: several modalities, or an encoder that gives fewer features than are to be imagined.
    """

    alters_student = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        source: Sequence[str],
        width: int | None = None,
        target: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, source=source, target=target, weight=weight)
        self.width = model.dim if width is None else width
        shown = model.modalities if self.target is None else self.target
        if len(shown) != 1:
            raise ValueError(f"one modality imagines another, and the student sees {', '.join(shown)}; fix: one target")
        self.modality = shown[0]
        if cast(int, model.encoders[self.modality].dim) < self.width:
            raise ValueError(
                f"the encoder of {self.modality} gives fewer than {self.width} features: it has no second branch; fix: "
                f"HallucinationTransfer.prepare"
            )

    @classmethod
    def of(cls, student: MultimodalModel, lesson: Lesson) -> Self:
        """See `Transfer.of`."""
        return cls(student, source=lesson.source, width=lesson.teacher.dim, weight=lesson.weight)

    @classmethod
    def prepare(cls, student: MultimodalModel, teacher: MultimodalModel) -> None:
        """Gives every encoder of a student a second branch of the teacher's width, which begins as a copy of the first.

        What the first branch gave goes on as it was; what is imagined is projected by new weights.
        """
        for name in student.modalities:
            seeing, standardise, project = student.encoders[name], *_after(student, name)
            student.exchange_encoder(name, HallucinatingEncoder(seeing, copy.deepcopy(seeing), teacher.dim))
            width, (known, wider) = len(standardise.mean), _after(student, name)
            with torch.no_grad():
                wider.weight[:, :width].copy_(project.weight)
                wider.bias.copy_(project.bias)
                known.mean[:width].copy_(standardise.mean)
                known.variance[:width].copy_(standardise.variance)
                known.batches.copy_(standardise.batches)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the mean cosine of what is imagined and the teacher's vector."""
        count = self.count(step)
        if count == 0:
            return None
        imagined, teacher = self._imagined(step), self.vectors(step)[1]
        wanted = torch.nn.functional.layer_norm(teacher, teacher.shape[1:])
        total = global_sum((imagined.sigmoid() - wanted.sigmoid()).square().sum())
        cosine = global_sum(torch.nn.functional.cosine_similarity(imagined.detach(), wanted, dim=1).sum())
        return {"loss": total / count * step.share(self.count), "cosine": cosine / count}

    def _imagined(self, step: Step) -> Tensor:
        """(n, D') of this rank's studies that both see; float32 or better."""
        rows = self.both(step)[step.batch.rows(self.modality)]
        if self.modality not in step.batch.inputs:
            return torch.zeros(0, self.width, device=step.present.device)
        given = step.raw(inputs={self.modality: step.batch.inputs[self.modality]})
        if self.modality not in given:
            return torch.zeros(0, self.width, device=step.present.device)
        pooled = given[self.modality].pooled[rows, -self.width :]
        return pooled.to(torch.promote_types(pooled.dtype, torch.float32))


def _after(model: MultimodalModel, modality: str) -> tuple[Standardise, nn.Linear]:
    """What follows an encoder."""
    return cast(Standardise, model.standardise[modality]), cast(nn.Linear, model.project[modality])
