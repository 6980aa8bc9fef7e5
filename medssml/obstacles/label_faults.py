"""Labels that are not there or not to be relied on: hidden, wrong at random, or one class taken for another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
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

    #: Whether numbers can be at fault too, and not only classes.
    of_numbers = False

    def __init__(self, severity: float = 0.5, seed: int = 0, tasks: Sequence[str] = ()) -> None:
        super().__init__(severity, seed)
        self.tasks = tuple(tasks)

    def fit(self, studies: Manifest, among: Manifest | None = None) -> None:
        for task in self.tasks or studies.tasks:
            if task not in studies.tasks:
                raise ValueError(f"{self.name}: no label_{task} in the table; fix: one of {list(studies.tasks)}")
            if self.tasks and not self._acts_on(studies.tasks[task]):
                raise ValueError(f"{self.name}: {task} is a number, not a class; fix: leave it out of tasks")

    def _acts_on(self, label: Label) -> bool:
        return self.of_numbers or label.kind != "regression"

    def applied(self, studies: Manifest) -> Manifest:
        if self.severity == 0:
            return studies
        table = studies.table.copy()
        for task, label in studies.tasks.items():
            if not self._acts_on(label) or (self.tasks and task not in self.tasks):
                continue
            draws = self.uniforms(studies.study_ids, (f"fault {task}", f"instead {task}"))
            known = np.isfinite(studies.targets[task])
            rows = np.flatnonzero(known & (draws[:, 0] < self.severity))
            values = studies.targets[task][rows]
            cells = table[f"label_{task}"].to_numpy(dtype=object).copy()
            cells[rows] = self.told(table[f"label_{task}"].iloc[rows], values, draws[rows, 1], label)
            table[f"label_{task}"] = cells
        return replace(studies, table=table)

    def told(
        self, cells: pd.Series, values: NDArray[np.float64], draws: NDArray[np.float64], label: Label
    ) -> Sequence[str]:
        """(n,) what the table says instead.

        Args:
            cells: (n,) what it said. values: (n,) the places of their classes. draws: (n,) in [0, 1). label: of the task.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what a label becomes")


class LabelsHidden(LabelFault):
    """Labels are not known."""

    name = "labels_hidden"
    says = "labels are not known"
    of_numbers = True

    def told(
        self, cells: pd.Series, values: NDArray[np.float64], draws: NDArray[np.float64], label: Label
    ) -> Sequence[str]:
        return [""] * len(values)


class LabelsSymmetric(LabelFault):
    """Labels are any other class, each as likely. Beyond (K - 1) / K of K classes they say the opposite."""

    name = "labels_symmetric"
    says = "labels are another class at random"

    def told(
        self, cells: pd.Series, values: NDArray[np.float64], draws: NDArray[np.float64], label: Label
    ) -> Sequence[str]:
        step = 1 + np.floor(draws * (label.n_classes - 1)).astype(int)
        return [label.classes[(int(v) + s) % label.n_classes] for v, s in zip(values, step, strict=True)]


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

    def told(
        self, cells: pd.Series, values: NDArray[np.float64], draws: NDArray[np.float64], label: Label
    ) -> Sequence[str]:
        missed = label.classes[-1] if self.missed is None else str(self.missed)
        instead = label.classes[0] if self.instead is None else str(self.instead)
        for name in (missed, instead):
            if name not in label.classes:
                raise ValueError(f"{self.name}: no class {name!r}; fix: one of {list(label.classes)}")
        of_it = values == label.classes.index(missed)
        return [instead if hit else str(cell) for hit, cell in zip(of_it, cells, strict=True)]
