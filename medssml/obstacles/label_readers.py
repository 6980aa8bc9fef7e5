"""Labels as somebody has read them: annotators who each err in their own way, and a labeller of reports of known errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri

from medssml.bounds import bounded
from medssml.manifest.labels import Label
from medssml.manifest.manifest import Manifest
from medssml.obstacles.absence import constant_for
from medssml.obstacles.label_faults import LabelFault
from medssml.randomness import hash64, mix

Floats = NDArray[np.float64]
#: Columns that may say who has read a study, the best first.
_READERS = ("group_annotator", "group_reader", "annotator", "reader")


class LabelsByAnnotator(LabelFault):
    """Each annotator mistakes classes at rates of their own, and each class for others of their own choice.

        logit P(annotator a mistakes class k) = c + spread z,  z ~ N(0, 1) by a and k, c such that the severity is the mean

    The mean is over the known labels of the cohort. What a class is mistaken for is drawn from weights that are the
    annotator's own, uniform on the simplex. All is drawn by the annotator's name, so that an annotator errs alike in every
    study.

    Args:
        severity, seed, tasks: as `LabelFault`; the severity is the mean rate.
        column: who has read a study; None = group_annotator, group_reader, annotator or reader, the first that the table has.
        annotators: how many there are where no column or cell says who; each study is then read by one of them, drawn.
        spread: of the logit between annotators and classes; 0 = all err alike.
    """

    name = "labels_by_annotator"
    says = "labels are those of annotators who err, each in their own way"

    def __init__(
        self,
        severity: float = 0.5,
        seed: int = 0,
        tasks: Sequence[str] = (),
        column: str | None = None,
        annotators: int = 5,
        spread: float = 1.0,
    ) -> None:
        super().__init__(severity, seed, tasks)
        bounded(f"annotators of {self.name}", annotators, least=1)
        bounded(f"spread of {self.name}", spread, least=0)
        self.column, self.annotators, self.spread = column, int(annotators), float(spread)
        self._population: dict[str, Floats] = {}

    def fit(self, studies: Manifest, among: Manifest | None = None) -> None:
        super().fit(studies, among)
        if self.column is not None and self.column not in studies.table:
            raise ValueError(f"{self.name}: the table has no column {self.column!r}; fix: column: one that it has")
        among = studies if among is None else among
        known = {task: np.isfinite(among.targets[task]) for task in self.asked(among)}
        self._population = {task: self._leaning(among, task)[rows] for task, rows in known.items()}

    def readers(self, studies: Manifest) -> list[str]:
        """(N) who has read each study."""
        drawn = np.floor(self.uniforms(studies.study_ids, ("annotator",))[:, 0] * self.annotators).astype(int)
        options = _READERS if self.column is None else (self.column,)
        column = next((name for name in options if name in studies.table), None)
        cells = [""] * len(studies) if column is None else [str(cell) for cell in studies.table[column]]
        return [cell or f"annotator {one}" for cell, one in zip(cells, drawn, strict=True)]

    def rates(self, studies: Manifest, task: str) -> Floats | float:
        if task not in self._population:
            raise ValueError(f"{self.name} does not know the cohort; fix: fit(studies) first")
        return np.asarray(expit(constant_for(self.severity, self._population[task]) + self._leaning(studies, task)))

    def _leaning(self, studies: Manifest, task: str) -> Floats:
        """(N,) what raises the logit of a wrong label of a study."""
        classes = studies.targets[task]
        normal = {
            (reader, c): float(ndtri((0.5 + self._of(reader, f"{task} {c}") * (2**53 - 1)) / 2**53))
            for reader, c in set(zip(self.readers(studies), np.nan_to_num(classes), strict=True))
        }
        pairs = zip(self.readers(studies), np.nan_to_num(classes), strict=True)
        return self.spread * np.array([normal[pair] for pair in pairs], np.float64)

    def told(self, studies: Manifest, task: str, draws: Floats) -> Sequence[str]:
        label, classes = studies.tasks[task], studies.targets[task].astype(int)
        weights = [
            [
                0.0 if other == c else -np.log1p(-self._of(reader, f"{task} {c} for {other}"))
                for other in range(label.n_classes)
            ]
            for reader, c in zip(self.readers(studies), classes, strict=True)
        ]
        return picked(np.array(weights, np.float64).reshape(len(studies), label.n_classes), draws, label)

    def _of(self, reader: str, what: str) -> float:
        """A number in [0, 1) of an annotator's own."""
        return mix(self.seed, hash64(self.name), hash64(reader), hash64(what)) / 2.0**63


class LabelsFromReports(LabelFault):
    """Labels as a labeller of reports gives them, whose errors are known: class k becomes class j with P[k, j].

    The severity is how far the labels are on the way to the labeller's, (1 - severity) I + severity P.

    Args:
        severity, seed, tasks: as `LabelFault`; at severity 1 the labels are the labeller's.
        sensitivity: how many labels of a class other than the first it gives rightly; it calls the others the first, "not
            mentioned".
        specificity: how many labels of the first class it gives rightly; the others are shared by the rest. Both defaults are
            a choice of ours: a labeller that overlooks more than it makes up.
        matrices: task -> P (K, K), a row for each class in the order of the table's, in the place of these two.
    """

    name = "labels_from_reports"
    says = "labels are those of a labeller of reports that errs"

    def __init__(
        self,
        severity: float = 0.5,
        seed: int = 0,
        tasks: Sequence[str] = (),
        sensitivity: float = 0.7,
        specificity: float = 0.95,
        matrices: Mapping[str, Sequence[Sequence[float]]] | None = None,
    ) -> None:
        super().__init__(severity, seed, tasks)
        bounded(f"sensitivity of {self.name}", sensitivity, least=0, most=1)
        bounded(f"specificity of {self.name}", specificity, least=0, most=1)
        self.sensitivity, self.specificity = float(sensitivity), float(specificity)
        self.matrices = {task: np.array(rows, np.float64) for task, rows in (matrices or {}).items()}

    def fit(self, studies: Manifest, among: Manifest | None = None) -> None:
        super().fit(studies, among)
        for task, matrix in self.matrices.items():
            if task not in self.asked(studies):
                raise ValueError(f"{self.name}: matrices names {task!r}; fix: one of {self.asked(studies)}")
            count = studies.tasks[task].n_classes
            if matrix.shape != (count, count) or (matrix < 0).any() or not np.allclose(matrix.sum(1), 1):
                raise ValueError(
                    f"{self.name}: the matrix of {task} has the shape {matrix.shape}; fix: {count} rows of {count} "
                    f"probabilities, each row with the sum 1"
                )

    def matrix(self, task: str, label: Label) -> Floats:
        """(K, K) how probable it is that the labeller says class j of class k."""
        if task in self.matrices:
            return self.matrices[task]
        found = np.diag(np.full(label.n_classes, self.sensitivity))
        found[1:, 0] = 1 - self.sensitivity
        found[0] = (1 - self.specificity) / (label.n_classes - 1)
        found[0, 0] = self.specificity
        return found

    def rates(self, studies: Manifest, task: str) -> Floats | float:
        wrong = 1 - np.diag(self.matrix(task, studies.tasks[task]))
        return self.severity * wrong[np.nan_to_num(studies.targets[task]).astype(int)]

    def told(self, studies: Manifest, task: str, draws: Floats) -> Sequence[str]:
        label, classes = studies.tasks[task], studies.targets[task].astype(int)
        weights = self.matrix(task, label)[classes].copy()
        weights[np.arange(len(classes)), classes] = 0
        return picked(weights, draws, label)


def picked(weights: Floats, draws: Floats, label: Label) -> list[str]:
    """(n,) classes, drawn by their weights (n, K), at least one of a row above 0, with draws (n,) in [0, 1)."""
    edges = weights.cumsum(1)
    places = (draws[:, None] * edges[:, -1:] >= edges).sum(1)
    return [label.classes[place] for place in places]
