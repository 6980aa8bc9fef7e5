"""Labels that are not there or not to be relied on: hidden, wrong at random, or one class taken for another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medssml.manifest.labels import Label
from medssml.manifest.manifest import Manifest
from medssml.obstacles.base import TableObstacle


class LabelFault(TableObstacle):
    """Every known label is at fault with the probability `severity`, by itself.

    Args:
        severity: the rate.
        seed: of the draws.
        tasks: whose labels; none = all that the obstacle can act on.
    """

    of_training = True
    #: Whether numbers can be at fault too, and not only classes.
    of_numbers = False
    #: Whether the labels of a subject are at fault together.
    by_subject = False

    def __init__(self, severity: float = 0.5, seed: int = 0, tasks: Sequence[str] = ()) -> None:
        super().__init__(severity, seed)
        self.tasks = tuple(tasks)

    def fit(self, studies: Manifest, among: Manifest | None = None) -> None:
        for task in self.tasks or studies.tasks:
            if task not in studies.tasks:
                raise ValueError(f"{self.name}: no label_{task} in the table; fix: one of {list(studies.tasks)}")
            if self.tasks and not self._acts_on(studies.tasks[task]):
                raise ValueError(f"{self.name}: {task} is a number, not a class; fix: leave it out of tasks")

    def asked(self, studies: Manifest) -> list[str]:
        """The tasks of a table whose labels can be at fault."""
        return [
            task
            for task, label in studies.tasks.items()
            if self._acts_on(label) and (not self.tasks or task in self.tasks)
        ]

    def _acts_on(self, label: Label) -> bool:
        return self.of_numbers or label.kind != "regression"

    def applied(self, studies: Manifest) -> Manifest:
        if self.severity == 0:
            return studies
        table = studies.table.copy()
        ids = studies.subject_ids if self.by_subject else studies.study_ids
        for task in self.asked(studies):
            draws = self.uniforms(ids, (f"fault {task}", f"instead {task}"))
            known = np.isfinite(studies.targets[task])
            rows = np.flatnonzero(known & (draws[:, 0] < self.rates(studies, task)))
            cells = table[f"label_{task}"].to_numpy(dtype=object).copy()
            cells[rows] = self.told(studies.filter(rows), task, draws[rows, 1])
            table[f"label_{task}"] = cells
        return replace(studies, table=table)

    def rates(self, studies: Manifest, task: str) -> NDArray[np.float64] | float:
        """(N,) how probable it is that the label of each study is at fault, or one number for all; anything where unknown."""
        return self.severity

    def told(self, studies: Manifest, task: str, draws: NDArray[np.float64]) -> Sequence[str]:
        """(n,) what the table says instead.

        Args:
            studies: n of them, whose label is known and at fault. task: which. draws: (n,) in [0, 1).
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what a label becomes")


class LabelsHidden(LabelFault):
    """Labels are not known: none of a subject, so that no other study of the subject gives them away."""

    name = "labels_hidden"
    says = "labels are not known"
    of_numbers = True
    by_subject = True

    def told(self, studies: Manifest, task: str, draws: NDArray[np.float64]) -> Sequence[str]:
        return [""] * len(studies)


class LabelsSymmetric(LabelFault):
    """Labels are any other class, each as likely. Beyond (K - 1) / K of K classes they say the opposite."""

    name = "labels_symmetric"
    says = "labels are another class at random"

    def told(self, studies: Manifest, task: str, draws: NDArray[np.float64]) -> Sequence[str]:
        label = studies.tasks[task]
        step = 1 + np.floor(draws * (label.n_classes - 1)).astype(int)
        return [label.classes[(int(v) + s) % label.n_classes] for v, s in zip(studies.targets[task], step, strict=True)]


class LabelsOfOneClass(LabelFault):
    """Labels of one class are called another: a finding that readers overlook.

    Args:
        severity, seed, tasks: as `LabelFault`; the severity is the rate among the labels of the class.
        missed: the class, by its name in the table; None = the last one, the positive one of two.
        instead: what it is called; None = the first one.
    """

    name = "labels_of_one_class"
    says = "one class is called another"

    def __init__(
        self,
        severity: float = 0.5,
        seed: int = 0,
        tasks: Sequence[str] = (),
        missed: str | None = None,
        instead: str | None = None,
    ) -> None:
        super().__init__(severity, seed, tasks)
        self.missed, self.instead = missed, instead

    def told(self, studies: Manifest, task: str, draws: NDArray[np.float64]) -> Sequence[str]:
        label = studies.tasks[task]
        missed, instead = (
            class_of(label, name, default, self.name)
            for name, default in ((self.missed, label.classes[-1]), (self.instead, label.classes[0]))
        )
        of_it = studies.targets[task] == label.classes.index(missed)
        cells = studies.table[f"label_{task}"]
        return [instead if hit else str(cell) for hit, cell in zip(of_it, cells, strict=True)]


def class_of(label: Label, name: str | None, default: str, owner: str) -> str:
    """The class that was named, or the default.

    Raises:
        ValueError: the task has no such class.
    """
    if name is None:
        return default
    if str(name) not in label.classes:
        raise ValueError(f"{owner}: no class {str(name)!r}; fix: one of {list(label.classes)}")
    return str(name)
