"""What a transfer is: an objective whose teacher sees other modalities of the same studies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from medssml.batch import Batch, Fused
from medssml.config import LeftOut
from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.objectives.study_loss import log_probabilities, wide


class Seen(NamedTuple):
    """What a teacher makes of N studies that it sees, on the CPU.

    vectors: (N, D'). labels: task -> (N,), NaN where none is known. answers: task -> (N, K) probabilities, of the tasks that the
    teacher knows.
    """

    vectors: Tensor
    labels: dict[str, Tensor]
    answers: dict[str, Tensor]


@dataclass(frozen=True)
class Lesson:
    """Who teaches what.

    Args:
        teacher: the model, which is not changed.
        source: what it is shown.
        tasks: that the student learns, with a head for each.
        weight: beside labels of weight 1.
        studies: of training that the teacher sees, with the labels that may be known; gone through once, where they are needed.
        sentences: of each class of the tasks, as studies that have a report alone and that label.
    """

    teacher: MultimodalModel
    source: Sequence[str]
    tasks: Sequence[str]
    weight: float = 1.0
    studies: Iterable[Batch] = ()
    sentences: Iterable[Batch] = ()

    @cached_property
    def seen(self) -> Seen:
        """What the teacher makes of `studies`."""
        return seen(self.teacher, self.source, self.studies, self.tasks)


class Transfer(Objective):
    """What a student that sees some modalities of a study learns from a teacher that sees others.

    The studies that count are those that have both, labelled or not: the labels of a poor modality may be few, its pairs many.
    The teacher is given and is not trained; whatever it says is a target and carries no gradient.

    Args:
        model: the student.
        source: modalities that are shown to the teacher; the student need not know them.
        target: modalities that the student is shown; all of its own by default.
        weight: in the sum of objectives.

    Attributes:
        asks_answers: whether the teacher has to know the tasks.
        paired: whether it needs studies that both see.
        lone: whether it learns from studies that the student alone sees, labelled or not, too.
        alters_student: whether the model of the student is another one for it: see `prepare`.

    Raises:
        ValueError: no source, or a target that the student does not have.
    """

    teacher: float | Ramp | Literal["given"] | None = "given"
    asks_answers: bool = False
    paired: bool = True
    lone: bool = False
    alters_student: bool = False

    def __init__(
        self,
        model: MultimodalModel,
        *,
        source: Sequence[str],
        target: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if not source or isinstance(source, str):
            raise ValueError(f"source is {source!r}; fix: a list of what the teacher is shown, such as [ct]")
        self.source = tuple(source)
        self.target = None if target is None else chosen(model, target, f"{type(self).__name__}: target")

    @classmethod
    def of(cls, student: MultimodalModel, lesson: Lesson) -> Self:
        """The transfer of a lesson to a student, its own weights drawn from the global generator.

        Raises:
            ValueError: it cannot be taught.
        """
        return cls(student, source=lesson.source, weight=lesson.weight)

    @classmethod
    def prepare(cls, student: MultimodalModel, teacher: MultimodalModel) -> None:
        """Makes of a student what this transfer needs, before its heads are there; by default nothing.

        The student alone is made so, too: what is measured is the teacher.
        """

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`; what the teacher is shown is a matter of its own model."""
        out = super().restricted_to(arguments, left)
        if arguments.get("target"):
            out["target"] = [name for name in arguments["target"] if name in left]
            if not out["target"]:
                raise LeftOut(f"needs {' or '.join(arguments['target'])}")
        return out

    def both(self, step: Step) -> Tensor:
        """(B,) bool: this rank's studies that both the teacher and the student see."""
        return step.having(self.source) & self.seen_by_student(step)

    def seen_by_student(self, step: Step) -> Tensor:
        """(B,) bool: this rank's studies that the student sees."""
        return step.having(step.model.modalities if self.target is None else self.target)

    def count(self, step: Step) -> Tensor:
        """() studies of all ranks that both see."""
        return global_sum(self.both(step).sum())

    def student(self, step: Step) -> Fused:
        """Every study as the student sees it."""
        return step.fused if self.target is None else step.fuse(step.encoded, _only(step, self.target))

    def taught(self, step: Step) -> Fused:
        """Every study as the teacher sees it from `source`.

        Raises:
            ValueError: the teacher reads none of it.
        """
        return self.shown(step.teacher)

    def shown(self, teacher: Step) -> Fused:
        """The same, of a step seen by any model that reads `source`."""
        return shown(teacher, self.source, type(self).__name__)

    def vectors(self, step: Step) -> tuple[Tensor, Tensor]:
        """(n, D) the student's and (n, D') the teacher's, of this rank's studies that both see; float32 or better."""
        both = self.both(step)
        # Every rank encodes, also one that sees nothing of both: what encoders standardise by is the statistics of all ranks.
        own = self.student(step).pooled[both]
        theirs = self.taught(step).pooled[both].detach() if len(own) else own.new_zeros(0, step.teacher.model.dim)
        pair = own, theirs
        student, teacher = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in pair)
        return student, teacher


def shown(step: Step, source: Sequence[str], owner: str) -> Fused:
    """Every study as the model of `step` sees it from the modalities `source`.

    Raises:
        ValueError: the model does not read one of them; with the name of the `owner`.
    """
    if not set(source) <= set(step.model.modalities):
        raise ValueError(f"{owner}: source {list(source)}; the teacher reads {list(step.model.modalities)}")
    inputs = {name: step.batch.inputs[name] for name in source if name in step.batch.inputs}
    # Without a name `encode` would take all that is there.
    encoded = step.encode(inputs=inputs) if inputs else {}
    return step.fuse(encoded, _only(step, source))


def seen(teacher: MultimodalModel, source: Sequence[str], batches: Iterable[Batch], tasks: Sequence[str]) -> Seen:
    """What a teacher makes of the studies that it sees.

    Args:
        source: what it is shown. batches: of studies with their labels. tasks: which labels and answers.

    Raises:
        ValueError: the teacher does not read one of `source`.
    """
    device = next(teacher.parameters()).device
    vectors = [torch.zeros(0, teacher.dim)]
    labels: dict[str, list[Tensor]] = {name: [torch.zeros(0)] for name in tasks}
    known = {
        name: teacher.tasks[name]
        for name in tasks
        if name in teacher.tasks and teacher.tasks[name].kind != "regression"
    }
    answers = {name: [torch.zeros(0, task.n_classes)] for name, task in known.items()}
    for batch in batches:
        step = Step(teacher, batch.to(device), frozen=True)
        rows, fused = step.having(source), shown(step, source, "teacher")
        vectors.append(wide(fused.pooled[rows]).cpu())
        for name in tasks:
            none = torch.full((len(batch),), torch.nan, device=device)
            labels[name].append(step.batch.targets.get(name, none)[rows].cpu())
        for name, task in known.items():
            with torch.no_grad():
                logits = wide(teacher.heads[name](fused))
            answers[name].append(log_probabilities(task, logits)[rows].exp().cpu())
    joined = ({name: torch.cat(parts) for name, parts in of.items()} for of in (labels, answers))
    return Seen(torch.cat(vectors), *joined)


def _only(step: Step, modalities: Collection[str]) -> Tensor:
    """(B, M) bool: what is present of `modalities`."""
    columns = [name in modalities for name in step.model.modalities]
    return step.present & torch.tensor(columns, device=step.present.device)
