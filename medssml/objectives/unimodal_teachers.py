"""Unimodal teachers: the encoders of a model of all modalities keep what each of them learns alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.objectives.study_loss import wide


class UnimodalTeachers(Objective):
    """loss = mean over modalities m of the mean over the studies that have m of  |s_m - t_m|^2 / D  (UMT)

    s_m and t_m are what the fusion is given of m by this model and by the teacher, which is given and not trained: a model whose
    encoders learned the labels from one modality at a time. A modality that answers later than the others stops learning in
    joint training; here it is held to what it can learn by itself. Labels are not asked for, nor are pairs.

    In the paper each modality has a teacher of its own; here one run is all of them (see docs/remedies.md).

    [1] Du et al., On uni-modal feature learning in supervised multi-modal learning, ICML 2023.

    Args:
        model: of the same width as the teacher.
        modalities: that are taught; all of the model's by default.
        weight: in the sum of objectives.

    Raises:
        ValueError: a modality that the model does not have.
    """

    teacher = "given"

    def __init__(
        self, model: MultimodalModel, *, modalities: Sequence[str] | None = None, weight: float | Ramp = 1.0
    ) -> None:
        super().__init__(model, weight=weight)
        self.modalities = chosen(model, modalities, "UnimodalTeachers")

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and "distance/MODALITY" of each that a study has.

        Raises:
            ValueError: a teacher that lacks one of the modalities, or is of another width.
        """
        teacher = step.teacher
        self._refuse_other(teacher.model, step.model)
        counts = self._counts(step)
        if not bool(counts.any()):
            return None
        totals = []
        for name in self.modalities:
            # Every rank takes part in each modality, also one whose studies lack it.
            found = wide(next(step.model.project[name].parameters()).new_zeros(()))
            if name in step.encoded:
                own, taught = (wide(seen.encoded[name].pooled) for seen in (step, teacher))
                found = (own - taught.detach()).square().mean(1).sum()
            totals.append(global_sum(found))
        means = torch.stack(totals) / counts.clamp(min=1)
        told = {f"distance/{m}": v.detach() for m, v, c in zip(self.modalities, means, counts, strict=True) if c > 0}
        return {"loss": step.mean_of_means(means, self._counts), **told}

    def _counts(self, step: Step) -> Tensor:
        """(modalities,) studies of all ranks that have each."""
        columns = [step.model.modalities.index(name) for name in self.modalities]
        return global_sum(step.present[:, columns].sum(0))

    def _refuse_other(self, teacher: MultimodalModel, model: MultimodalModel) -> None:
        lacking = [name for name in self.modalities if name not in teacher.modalities]
        if lacking or teacher.dim != model.dim:
            found = f"has no {', '.join(lacking)}" if lacking else f"is {teacher.dim} wide and the model {model.dim}"
            raise ValueError(f"UnimodalTeachers: the teacher {found}; fix: a teacher that began as this model did")
