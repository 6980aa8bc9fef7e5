"""What transfers without a pair have in common: the teacher's vectors of other studies, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.bounds import bounded
from medssml.losses import all_gather_rows, global_sum
from medssml.model import MultimodalModel, Task
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.objectives.study_loss import log_probabilities, wide
from medssml.objectives.supervised import chosen_tasks
from medssml.randomness import hash64, mix
from medssml.transfer.base import Lesson, Seen, Transfer


class Others(NamedTuple):
    """What is known of N studies of the teacher. vectors: (N, D'). said: (N, C) probabilities of the classes, task by task."""

    vectors: Tensor
    said: Tensor


class Mine(NamedTuple):
    """This step's studies that the student sees, of all ranks.

    vectors: (n, D') in the teacher's space. said: (n, C) as `Others.said`. both: (n,) bool, whether the teacher sees them, too.
    theirs: (n, D') its vector of these, 0 of the others.
    """

    vectors: Tensor
    said: Tensor
    both: Tensor
    theirs: Tensor


class UnpairedTransfer(Transfer):
    """A transfer from the teacher's vectors of whichever training studies it sees, with what is said of each: its label, or what
    the teacher answers.

    A linear map W takes the student's vectors to the teacher's and is thrown away. The teacher's are centred, and scaled by one
    number so that a feature has variance 1 on average. What is said of a study of the student is its label, or its own answer.
    In a step take part the student's studies, labelled or not, and `draw` of the teacher's, drawn anew.

    Args:
        model: the student, with a head for every task.
        source: modalities that are shown to the teacher.
        tasks: which; all of the student's by default.
        others: what the teacher makes of its studies, and what is said of them; without it nothing can be asked.
        draw: how many of `others` a step sees.
        target: modalities that the student is shown; all of its own by default.
        weight: in the sum of objectives.

    Raises:
        ValueError: a task that the student does not have, or that is a number; a draw of fewer than two.
    """

    _handed_in = ("model", "others")

    paired = False
    lone = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        source: Sequence[str],
        tasks: Sequence[str] | None = None,
        others: Others | None = None,
        draw: int = 256,
        target: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, source=source, target=target, weight=weight)
        self.tasks, self.draw = chosen_tasks(model, tasks), draw
        for name, task in self.tasks.items():
            if task.kind == "regression":
                raise ValueError(
                    f"{type(self).__name__} is for classes, and task {name!r} is a number; fix: another method"
                )
        bounded("draw", draw, least=2)
        vectors, said = (torch.zeros(0, model.dim), torch.zeros(0, 0)) if others is None else others
        centre = vectors.mean(0)
        spread = (vectors - centre).square().mean().sqrt().clamp(min=torch.finfo(centre.dtype).tiny)
        self.regressor = nn.Linear(model.dim, vectors.shape[1])
        # Not in the state: the teacher says it again.
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("spread", spread, persistent=False)
        self.register_buffer("vectors_of_others", (vectors - centre) / spread, persistent=False)
        self.register_buffer("said_of_others", said, persistent=False)

    @classmethod
    def of(cls, student: MultimodalModel, lesson: Lesson) -> Self:
        """See `Transfer.of`.

        Raises:
            ValueError: nothing is known of the classes of two studies that the teacher sees.
        """
        tasks = {name: student.tasks[name] for name in lesson.tasks}
        others = known_others(lesson.seen, lesson.teacher, tasks)
        if len(others.vectors) < 2:
            raise ValueError(
                f"of {len(lesson.seen.vectors)} training studies with {' or '.join(lesson.source)} the classes of "
                f"{', '.join(tasks)} are known of {len(others.vectors)}; fix: label more, or a teacher that knows the task"
            )
        return cls(student, source=lesson.source, others=others, tasks=lesson.tasks, weight=lesson.weight)

    def mine(self, step: Step) -> Mine:
        """The student's studies of all ranks, of which every rank computes the whole loss."""
        rows, both = self.seen_by_student(step), self.both(step)
        fused = self.student(step)
        own = wide(self.regressor(fused.pooled[rows]))
        said = [self._said(step, name, task, step.model.heads[name](fused))[rows] for name, task in self.tasks.items()]
        theirs = torch.zeros_like(own)
        if bool(both.any()):
            theirs = torch.where(both[rows, None], self._standard(self.taught(step).pooled[rows].detach()), theirs)
        return Mine(
            all_gather_rows(own), all_gather_rows(torch.cat(said, dim=1)), all_gather_rows(both[rows].long()).bool(),
            all_gather_rows(theirs),
        )  # fmt: skip

    def others(self, step: Step) -> Others:
        """Those of the teacher's studies that this step sees, on every rank the same.

        Raises:
            ValueError: fewer than two are known.
        """
        vectors, said = self.get_buffer("vectors_of_others"), self.get_buffer("said_of_others")
        if len(vectors) < 2:
            raise ValueError(
                f"{type(self).__name__} knows {len(vectors)} studies of its teacher; fix: medssml transfer, or others="
            )
        if len(vectors) > self.draw:
            generator = torch.Generator().manual_seed(mix(hash64("others"), step.seed, step.clock.step))
            drawn = torch.randperm(len(vectors), generator=generator)[: self.draw].to(vectors.device)
            vectors, said = vectors[drawn], said[drawn]
        return Others(vectors, said)

    def seen(self, step: Step) -> Tensor:
        """() studies of all ranks that the student sees."""
        return global_sum(self.seen_by_student(step).sum())

    def _standard(self, vectors: Tensor) -> Tensor:
        return (wide(vectors) - self.get_buffer("centre")) / self.get_buffer("spread")

    def _said(self, step: Step, name: str, task: Task, logits: Tensor) -> Tensor:
        """(B, K) the label of each study, or what the student answers."""
        answers = log_probabilities(task, wide(logits)).exp()
        target = step.batch.targets.get(name)
        return answers if target is None else or_label(answers, target)


def or_label(answers: Tensor, labels: Tensor) -> Tensor:
    """(N, K) probabilities, in their place the label of each study that has one; labels (N,), NaN where there is none."""
    known = torch.isfinite(labels)
    certain = F.one_hot(labels.nan_to_num(0.0).long(), answers.shape[1]).to(answers.dtype)
    return torch.where(known[:, None], certain, answers)


def known_others(seen: Seen, teacher: MultimodalModel, tasks: Mapping[str, Task]) -> Others:
    """The teacher's studies of which the class of every task is known, by the label or as the teacher answers.

    Args:
        tasks: of the student; a teacher whose task of that name has other classes does not know it.
    """
    said = []
    for name, task in tasks.items():
        answers = torch.full((len(seen.vectors), task.n_classes), torch.nan)
        if name in seen.answers and teacher.tasks[name].label == task.label:
            answers = seen.answers[name]
        said.append(or_label(answers, seen.labels[name]))
    joined = torch.cat(said, dim=1)
    known = joined.isfinite().all(1)
    return Others(seen.vectors[known], joined[known])
