"""Transfer by text anchors: the student's vectors are drawn to the sentences that name their class."""

from __future__ import annotations

from typing import Self

from medssml.model import MultimodalModel
from medssml.transfer.base import Lesson, seen
from medssml.transfer.prototypes import Prototypes, PrototypeTransfer, class_means, class_sizes

#: The modality of sentences.
TEXT = "report"


class AnchorTransfer(PrototypeTransfer):
    """`PrototypeTransfer`, the prototype of a class being the mean vector of sentences that name it, as reports

    What a class is called takes the place of studies that have it [1], so that neither a pair nor a labelled study of the
    teacher's is needed, and classes lie as what is said of them does. Where both see a study, the teacher answers for it by
    its distance to the sentences; its vectors are centred by those of training studies that it sees, if there are any, as
    studies differ from sentences in what all of them share.

    [1] Radford et al., Learning transferable visual models from natural language supervision, ICML 2021: classes by their
    sentences, several of which are an ensemble; here of any teacher that reads reports.

    Args: as of `PrototypeTransfer`.
    """

    @classmethod
    def of(cls, student: MultimodalModel, lesson: Lesson) -> Self:
        """See `Transfer.of`.

        Raises:
            ValueError: the teacher reads no report, or a task without sentences.
        """
        if TEXT not in lesson.teacher.modalities:
            raise ValueError(
                f"anchors are sentences, and the teacher reads {', '.join(lesson.teacher.modalities)}; fix: a teacher that reads "
                f"reports, or --method prototypes"
            )
        sizes = class_sizes(student, lesson.tasks)
        named = class_means(seen(lesson.teacher, [TEXT], lesson.sentences, lesson.tasks), sizes)
        centre = lesson.seen.vectors.double().mean(0).float()
        known = {}
        for name, found in named.items():
            if not bool(found.classes.isfinite().all()):
                raise ValueError(f"no sentence names the classes of {name}; fix: --prompts with this task")
            known[name] = Prototypes(found.classes, centre if bool(centre.isfinite().all()) else found.centre)
        return cls(
            student, source=lesson.source, tasks=lesson.tasks, prototypes=known, teacher_dim=lesson.teacher.dim,
            weight=lesson.weight,
        )  # fmt: skip
