"""Transfer by co-training: two models of two modalities, of which each learns what the other is sure of."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from medssml.losses import global_sum
from medssml.model import MultimodalModel, Task
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.objectives.study_loss import CrossEntropy, log_probabilities, wide
from medssml.objectives.supervised import chosen_tasks
from medssml.transfer.base import Lesson, Transfer


class CoTraining(Transfer):
    """loss = mean over unlabelled studies of  [p_t >= c] CE(s, argmax t) + [p_s >= c] CE(t, argmax s),
    and of labelled ones of  CE(t, y)

    over the studies that both see; s and t are the answers of student and partner from their own modalities, p how sure each is,
    and what one is sure of is a label to the other, without gradient. A study of which neither is sure counts as 0, so that few
    sure ones weigh little. The partner begins as the teacher, learns on, and is left behind when the run ends; the student learns
    its own labels beside, from all its labelled studies. Two views that err apart correct each other; two that err alike do not.

    [1] Blum, Mitchell, Combining labeled and unlabeled data with co-training, COLT 1998: in rounds, of which each adds the
    studies that one of the two is surest of. Here in every step, by a threshold, as Sohn et al., FixMatch, NeurIPS 2020,
    equation 4.

    Args:
        model: the student, with a head for every task.
        source: modalities that are shown to the partner.
        tasks: which; all of the student's by default.
        partner: the model of those modalities, copied; by default a copy of the student.
        confidence: c, the probability from which an answer counts.
        target: modalities that the student is shown; all of its own by default.
        weight: in the sum of objectives.

    Raises:
        ValueError: a task that one of the two does not have or that is a number, or a confidence out of range.
    """

    _handed_in = ("model", "partner")

    teacher = None
    asks_answers = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        source: Sequence[str],
        tasks: Sequence[str] | None = None,
        partner: MultimodalModel | None = None,
        confidence: float = 0.9,
        target: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, source=source, target=target, weight=weight)
        if not 0 < confidence <= 1:
            raise ValueError(f"confidence is {confidence}; fix: a probability above 0, such as 0.9")
        self.tasks = chosen_tasks(model, tasks)
        self.confidence = confidence
        self.peer: MultimodalModel = copy.deepcopy(model if partner is None else partner).requires_grad_(True)
        for name, task in self.tasks.items():
            if task.kind == "regression":
                raise ValueError(f"co-training is for classes, and task {name!r} is a number; fix: another method")
            if name not in self.peer.tasks or self.peer.tasks[name].label != task.label:
                known = ", ".join(f"{key} ({value.words})" for key, value in self.peer.tasks.items())
                raise ValueError(f"the teacher does not know {name} ({task.words}), but {known or 'no task'}")

    @classmethod
    def of(cls, student: MultimodalModel, lesson: Lesson) -> Self:
        """See `Transfer.of`."""
        return cls(student, source=lesson.source, tasks=lesson.tasks, partner=lesson.teacher, weight=lesson.weight)

    @property
    def peers(self) -> tuple[MultimodalModel, ...]:
        """See `Objective.peers`."""
        return (self.peer,)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the share of unlabelled studies that student and partner are sure of."""
        unlabelled, labelled = self._counts(step)
        if unlabelled.sum() + labelled.sum() == 0:
            return None
        found = [self._sums(step, name, task) for name, task in self.tasks.items()]
        told, taught, mine, theirs = (global_sum(torch.stack(part)) for part in zip(*found, strict=True))
        shared = step.mean_of_means(told / unlabelled.clamp(min=1), lambda other: self._counts(other)[0])
        own = step.mean_of_means(taught / labelled.clamp(min=1), lambda other: self._counts(other)[1])
        asked = unlabelled.sum().clamp(min=1)
        return {"loss": shared + own, "sure_student": mine.sum() / asked, "sure_partner": theirs.sum() / asked}

    def _sums(self, step: Step, name: str, task: Task) -> _Sums:
        """This rank's sums of one task."""
        other = step.seen_by(self.peer, seed=step.seed + 1)
        student = wide(step.model.heads[name](self.student(step)))
        partner = wide(self.peer.heads[name](self.shown(other)))
        label, known = self._labels(step, name)
        both = self.both(step)
        sure_s, sure_t = (_Sure.of(task, logits, self.confidence) for logits in (student, partner))
        loss = CrossEntropy()
        told = torch.where(both & ~known & sure_t.enough, loss(task, student, sure_t.answer), 0.0)
        told = told + torch.where(both & ~known & sure_s.enough, loss(task, partner, sure_s.answer), 0.0)
        taught = torch.where(both & known, loss(task, partner, label), 0.0)
        sure = [(both & ~known & part.enough).float().sum() for part in (sure_s, sure_t)]
        return _Sums(told.sum(), taught.sum(), *sure)

    def _labels(self, step: Step, name: str) -> tuple[Tensor, Tensor]:
        """(B,) label of a task, 0 where there is none, and (B,) bool, where there is one."""
        none = step.present.new_zeros(len(step.batch), dtype=torch.float32)
        label = step.batch.targets.get(name, none + torch.nan)
        return label.nan_to_num(0.0), torch.isfinite(label)

    def _counts(self, step: Step) -> tuple[Tensor, Tensor]:
        """(tasks,) unlabelled and labelled studies of all ranks that both see."""
        both = self.both(step)
        known = torch.stack([self._labels(step, name)[1] for name in self.tasks])
        return global_sum((both & ~known).sum(1)), global_sum((both & known).sum(1))


class _Sums(NamedTuple):
    """told: what each learns of the other's answers. taught: the partner's labels. student, partner: studies they are sure of."""

    told: Tensor
    taught: Tensor
    student: Tensor
    partner: Tensor


class _Sure(NamedTuple):
    """answer: (B,) the most probable class. enough: (B,) bool, whether its probability is high enough."""

    answer: Tensor
    enough: Tensor

    @classmethod
    def of(cls, task: Task, logits: Tensor, confidence: float) -> _Sure:
        best = log_probabilities(task, logits.detach()).exp().max(1)
        return cls(best.indices.to(logits.dtype), best.values >= confidence)
