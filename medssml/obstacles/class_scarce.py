"""A class that hardly any training study is of."""

from __future__ import annotations

from medssml.manifest.manifest import Manifest
from medssml.obstacles.base import TableObstacle
from medssml.obstacles.label_faults import class_of

#: Share of the class's training subjects that is left at severity 1.
LEAST = 0.01


class ClassScarce(TableObstacle):
    """Training studies of a class are thinned out to 0.01 ** severity of them; those of validation and test stay.

    Studies of the class go subject by subject. Those whose label is not known stay.

    Args:
        severity: half the logarithmic way, at 0.5, a tenth is left.
        seed: of the draws.
        task: whose class; None = the first of the table.
        scarce: the class, by its name in the table; None = the last one, the positive one of two.
    """

    name = "class_scarce"
    says = "training studies of one class are rare"
    of_training = True

    def __init__(
        self, severity: float = 0.5, seed: int = 0, task: str | None = None, scarce: str | None = None
    ) -> None:
        super().__init__(severity, seed)
        self.task, self.scarce = task, scarce

    def fit(self, studies: Manifest, among: Manifest | None = None) -> None:
        self._of(studies)

    def _of(self, studies: Manifest) -> tuple[str, int]:
        """The task, and the place of the class."""
        task = next(iter(studies.tasks), "") if self.task is None else self.task
        if task not in studies.tasks:
            raise ValueError(f"{self.name}: no label_{task} in the table; fix: task: one of {list(studies.tasks)}")
        label = studies.tasks[task]
        if label.kind == "regression":
            raise ValueError(f"{self.name}: {task} is a number, not a class; fix: another task")
        return task, label.classes.index(class_of(label, self.scarce, label.classes[-1], self.name))

    def applied(self, studies: Manifest) -> Manifest:
        if self.severity == 0:
            return studies
        task, place = self._of(studies)
        of_it = (studies.targets[task] == place) & (studies.splits == "train")
        lot = self.uniforms(studies.subject_ids, (f"scarce {task}",))[:, 0]
        return studies.filter(~of_it | (lot < LEAST**self.severity))
