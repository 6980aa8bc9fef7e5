"""Transfer by prototypes: the student's vectors are drawn to where the teacher has their class. No pair is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.objectives.supervised import chosen_tasks
from medssml.transfer.base import Lesson, Seen, Transfer


class Prototypes(NamedTuple):
    """What a teacher knows of the classes of a task. classes: (K, D') a vector of each. centre: (D',) of all studies."""

    classes: Tensor
    centre: Tensor


class PrototypeTransfer(Transfer):
    """loss = mean over tasks and studies of  -sum over c of q_c log softmax_c(cos(W s, p_c - m) / T)

    p_c is the teacher's vector of class c, its mean over labelled studies that it sees, from whichever patients they are; m is
    the mean of the p_c, W a linear map that is thrown away. q is the label of a study that the student has one of; of one
    without, that both see, what the teacher's vector says: softmax_c(cos(t - centre, p_c - m) / T), where the centre is m, too.
    Without a study that both see the classes alone teach, how they lie to each other: that is little where there are two.

    [1] Snell, Swersky, Zemel, Prototypical networks for few-shot learning, NeurIPS 2017, whose prototypes these are, with the
    cosine in the place of the distance, as widths differ; across modalities no one paper has this objective.

    Args:
        model: the student.
        source: modalities that are shown to the teacher.
        tasks: which; all of the student's by default.
        prototypes: task -> what the teacher knows of its classes; nothing by default, which is what a saved state fills.
        teacher_dim: D' of the teacher; the student's own by default.
        temperature: T.
        target: modalities that the student is shown; all of its own by default.
        weight: in the sum of objectives.

    Raises:
        ValueError: a task that the student does not have, or that is a number; a temperature that is not positive.
    """

    _handed_in = ("model", "prototypes")

    paired = False

    def __init__(
        self,
        model: MultimodalModel,
        *,
        source: Sequence[str],
        tasks: Sequence[str] | None = None,
        prototypes: Mapping[str, Prototypes] | None = None,
        teacher_dim: int | None = None,
        temperature: float = 0.1,
        target: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, source=source, target=target, weight=weight)
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; fix: a positive number")
        self.tasks, self.temperature = chosen_tasks(model, tasks), temperature
        width = model.dim if teacher_dim is None else teacher_dim
        self.regressor = nn.Linear(model.dim, width)
        for place, (name, task) in enumerate(self.tasks.items()):
            if task.kind == "regression":
                raise ValueError(f"a prototype is of a class, and task {name!r} is a number; fix: another method")
            count = task.n_classes if task.kind == "multiclass" else 2
            known = Prototypes(torch.zeros(count, width), torch.zeros(width))
            known = known if prototypes is None else prototypes[name]
            self.register_buffer(f"classes_{place}", known.classes - known.classes.mean(0))
            self.register_buffer(f"centre_{place}", known.centre.clone())

    @classmethod
    def of(cls, student: MultimodalModel, lesson: Lesson) -> Self:
        """See `Transfer.of`."""
        known = class_means(lesson.seen, class_sizes(student, lesson.tasks))
        for name, found in known.items():
            if not bool(found.classes.isfinite().all()):
                raise ValueError(
                    f"no labelled training study with {' or '.join(lesson.source)} of one class of {name}, so that it has no "
                    f"prototype; fix: more labels, or --method anchors, whose classes are named by sentences"
                )
        known = {name: Prototypes(found.classes, found.classes.mean(0)) for name, found in known.items()}
        return cls(
            student, source=lesson.source, tasks=lesson.tasks, prototypes=known, teacher_dim=lesson.teacher.dim,
            weight=lesson.weight,
        )  # fmt: skip

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the share of labelled studies whose own prototype is the nearest, where there are any."""
        counts = self._counts(step)
        if counts.sum() == 0:
            return None
        rows, asked = self.seen_by_student(step), self._asked(step)
        vectors = self.regressor(self.student(step).pooled[rows])
        teacher = self.taught(step).pooled[rows].detach() if bool(asked.any()) else None
        losses, right, labelled = [], [], []
        for place, name in enumerate(self.tasks):
            label, known = self._labels(step, name)
            found = self._cosines(vectors, place)
            wanted = F.one_hot(label[rows], found.shape[1]).to(found.dtype)
            if teacher is not None:
                centred = teacher - self.get_buffer(f"centre_{place}").to(teacher.dtype)
                said = self._cosines(centred, place).softmax(1).to(found.dtype)
                wanted = torch.where(known[rows, None], wanted, said)
            each = -(wanted * found.log_softmax(1)).sum(1)
            losses.append(torch.where(known[rows] | self.both(step)[rows], each, 0.0).sum())
            right.append(((found.argmax(1) == label[rows]) & known[rows]).sum())
            labelled.append(known[rows].sum())
        means = global_sum(torch.stack(losses)) / counts.clamp(min=1)
        out = {"loss": step.mean_of_means(means, self._counts)}
        correct, of = (global_sum(torch.stack(part).sum()) for part in (right, labelled))
        return out | ({"accuracy": correct / of} if of > 0 else {})

    def _cosines(self, vectors: Tensor, place: int) -> Tensor:
        """(n, K) cos / T of vectors (n, D') and the prototypes of a task; float32 or better."""
        dtype = torch.promote_types(vectors.dtype, torch.float32)
        classes = self.get_buffer(f"classes_{place}").to(dtype)
        return F.normalize(vectors.to(dtype), dim=1) @ F.normalize(classes, dim=1).T / self.temperature

    def _labels(self, step: Step, name: str) -> tuple[Tensor, Tensor]:
        """(B,) int64 label of a task, 0 where there is none, and (B,) bool, where the student sees a study that has one."""
        target = step.batch.targets.get(name)
        if target is None:
            none = torch.zeros(len(step.batch), dtype=torch.int64, device=step.present.device)
            return none, none.bool()
        return target.nan_to_num(0.0).long(), torch.isfinite(target) & self.seen_by_student(step)

    def _asked(self, step: Step) -> Tensor:
        """(B,) bool: this rank's studies that both see and that lack a label."""
        known = torch.stack([self._labels(step, name)[1] for name in self.tasks])
        return self.both(step) & ~known.all(0)

    def _counts(self, step: Step) -> Tensor:
        """(tasks,) studies of all ranks with a label, or that both see."""
        known = torch.stack([self._labels(step, name)[1] for name in self.tasks])
        return global_sum((known | self.both(step)).sum(1))


def class_means(seen: Seen, sizes: Mapping[str, int]) -> dict[str, Prototypes]:
    """Task -> the mean of the teacher's vectors over the studies of each class, NaN for one of which it sees none, and over all
    studies that it sees, labelled or not.

    Args:
        sizes: task -> K.
    """
    every, found = seen.vectors.double(), {}
    for name, count in sizes.items():
        means = torch.stack([every[seen.labels[name] == value].mean(0) for value in range(count)])
        found[name] = Prototypes(means.float(), every.mean(0).float())
    return found


def class_sizes(student: MultimodalModel, tasks: Sequence[str]) -> dict[str, int]:
    """Task -> how many classes it has."""
    known = {name: student.tasks[name] for name in tasks}
    return {name: task.n_classes if task.kind == "multiclass" else 2 for name, task in known.items()}
