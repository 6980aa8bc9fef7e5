"""What the teacher answers, as a target of the student's answers: two ways, per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from medssml.losses import global_sum
from medssml.model import MultimodalModel, Task
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.objectives.study_loss import wide
from medssml.objectives.supervised import chosen_tasks
from medssml.transfer.base import Lesson, Transfer


class Imitation(Protocol):
    """The loss of each study of one task, (B,), from logits of student and teacher (B,) or (B, K)."""

    def __call__(self, task: Task, student: Tensor, teacher: Tensor, temperature: float) -> Tensor: ...


class AnswerTransfer(Transfer):
    """loss = mean over tasks of the mean over studies that both see of  imitation(student's answer, teacher's answer)

    Args:
        model: the student, with a head for every task; its teacher has one, too.
        source: modalities that are shown to the teacher.
        tasks: which; all of the student's by default.
        temperature: T.
        target: modalities that the student is shown; all of its own by default.
        weight: in the sum of objectives.

    Raises:
        ValueError: a task that the student does not have, or a temperature that is not positive.
    """

    asks_answers = True
    imitation: Imitation

    def __init__(
        self,
        model: MultimodalModel,
        *,
        source: Sequence[str],
        tasks: Sequence[str] | None = None,
        temperature: float = 1.0,
        target: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, source=source, target=target, weight=weight)
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; fix: a positive number")
        self.tasks = chosen_tasks(model, tasks)
        self.temperature = temperature

    @classmethod
    def of(cls, student: MultimodalModel, lesson: Lesson) -> Self:
        """See `Transfer.of`."""
        return cls(student, source=lesson.source, tasks=lesson.tasks, weight=lesson.weight)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and "loss/TASK" of every task."""
        count = self.count(step)
        if count == 0:
            return None
        sums = global_sum(self._sums(step))
        means = sums / count
        counted = means.new_ones(len(self.tasks))
        loss = step.mean_of_means(means, lambda other: self.count(other) * counted)
        return {"loss": loss, **{f"loss/{name}": mean.detach() for name, mean in zip(self.tasks, means, strict=True)}}

    def _sums(self, step: Step) -> Tensor:
        """(tasks,) this rank's sums over the studies that both see."""
        both, student = self.both(step), self.student(step)  # every rank encodes: see `Transfer.vectors`
        if not bool(both.any()):
            dtype = torch.promote_types(student.pooled.dtype, torch.float32)
            return student.pooled.new_zeros(len(self.tasks), dtype=dtype)
        teacher = self.taught(step)
        heads = step.teacher.model.heads
        sums = []
        for name, task in self.tasks.items():
            if name not in heads:
                raise ValueError(f"the teacher knows no task {name!r}; fix: one of {', '.join(heads) or 'none'}")
            said = wide(heads[name](teacher)[both]).detach()
            sums.append(
                type(self).imitation(task, wide(step.model.heads[name](student)[both]), said, self.temperature).sum()
            )
        return torch.stack(sums)
