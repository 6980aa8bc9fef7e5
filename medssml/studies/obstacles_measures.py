"""The figures of one task, one obstacle and one recipe in `medssml study obstacles`, over subjects and seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from medssml.evaluation.bayes import bayes_column
from medssml.evaluation.stress_measures import enough
from medssml.statistics.bootstrap import Array, Interval, intervals, over_seeds
from medssml.statistics.metrics import auroc, metrics_of, point
from medssml.studies.obstacles_answers import LEFT, REVERSED, SAME, UNDAMAGED, UNTAUGHT

#: weights (R, N) -> (R, S): a figure of each seed's model.
PerSeed = Callable[[Array], Array]


class Question:
    """One task, one case, one recipe: what the models of all seeds answer.

    Args:
        cell: answers of all seeds. task: which. truth: of the cohort. bootstrap: resamples of subjects.
    """

    def __init__(self, cell: pd.DataFrame, task: str, truth: pd.DataFrame, bootstrap: int) -> None:
        self.bootstrap, self._task = bootstrap, task
        rows = cell.loc[cell["task"] == task]
        self.val, self.test = (rows.loc[rows["split"] == split] for split in ("val", "test"))
        first = self.test.drop_duplicates("study_id").sort_values("study_id")
        self.study_id, self.left = first["study_id"].to_numpy(), first[LEFT].fillna("").to_numpy()
        self.y, self.subject = first["y"].to_numpy(float), first["subject"].to_numpy()
        known = set(cell.columns) - {"split", "study_id", "subject", "task", "y", "seed", LEFT}
        self.scores = {name: self._by_seed(name) for name in known if self.test[name].notna().any()}
        best = {name: bayes_column(task, name) for name in self.scores if bayes_column(task, name) in truth}
        self._best = {name: truth.loc[self.study_id, column].to_numpy(float) for name, column in best.items()}

    def _by_seed(self, column: str) -> Array:
        """(S, N) probabilities."""
        table = self.test.pivot(index="seed", columns="study_id", values=column)
        return np.asarray(table.loc[:, self.study_id].to_numpy(dtype=np.float64))

    @property
    def answerable(self) -> bool:
        """Whether there are studies of both classes, on validation and on test."""
        return all(part["y"].nunique() == 2 for part in (self.val, self.test))

    @property
    def full(self) -> str:
        """The subset of all modalities."""
        return max(self._best, key=lambda name: name.count("+"), default="")

    def said(self, column: str, split: str = "test") -> pd.DataFrame:
        """What ranks are made from: study_id, subject, seed, y, probability."""
        table = self.val if split == "val" else self.test
        return table[["study_id", "subject", "seed", "y"]].assign(probability=table[column])

    def validated(self) -> float:
        """AUROC on validation studies, the mean over seeds."""
        found = [point(auroc, p["y"].to_numpy(float), p[SAME].to_numpy(float)) for _, p in self.val.groupby("seed")]
        return float(np.mean(found))

    def auroc_of(self, column: str) -> PerSeed:
        """AUROC of each seed's model, over the studies that have an answer in a column."""
        rows = np.flatnonzero(np.isfinite(self.scores[column]).all(axis=0))
        y, scores = self.y[rows], self.scores[column][:, rows]
        return lambda weights: np.stack([auroc(y, one, weights[:, rows]) for one in scores], axis=1)

    def gap_of(self, subset: str) -> PerSeed:
        """AUROC of the best possible answers from a subset minus that of each seed's model, on undamaged studies."""
        own, rows = self.auroc_of(subset), np.flatnonzero(np.isfinite(self.scores[subset]).all(axis=0))
        y, best = self.y[rows], self._best[subset][rows]
        return lambda weights: auroc(y, best, weights[:, rows])[:, None] - own(weights)

    def subsets(self) -> list[str]:
        """Those whose best possible answers are known, with test studies of both classes."""
        return [name for name in self._best if len(set(self._labels_of(name))) == 2]

    def _labels_of(self, subset: str) -> Array:
        """(n,) labels of the test studies that have a subset."""
        return self.y[np.isfinite(self.scores[subset]).all(axis=0)]

    def ece(self) -> PerSeed:
        """Expected calibration error under the obstacle."""
        metric = metrics_of("binary")["ece"]
        return lambda weights: np.stack([metric(self.y, one, weights) for one in self.scores[SAME]], axis=1)

    def measured(self, reference: Question) -> dict[str, Any]:
        """Figures of test studies, each with its interval over subjects and seeds.

        Args:
            reference: the same recipe taught without the obstacle.

        Returns:
            same, undamaged, untaught, reversed: AUROC. cost: what is lost beside the reference on undamaged studies by
            suffering the obstacle. price: what being taught with it costs on complete studies, seen whole. ece. gap: to
            Bayes, the mean over all subsets of undamaged studies. worst: the subset of the largest gap, of those
            with `enough` studies. best: AUROC of the best possible answers to what is left.
        """
        if not self.answerable:
            return {}
        columns = [name for name in (SAME, UNDAMAGED, UNTAUGHT, REVERSED) if name in self.scores]
        figures: dict[str, PerSeed] = {name: self.auroc_of(name) for name in columns} | {"ece": self.ece()}
        figures["cost"] = minus(reference.auroc_of(UNDAMAGED), figures[SAME])
        if self.full:
            figures["price"] = minus(reference.auroc_of(self.full), self.auroc_of(self.full))
        names = self.subsets()
        gaps = [self.gap_of(name) for name in names]
        if gaps:
            figures["gap"] = lambda weights: np.mean([gap(weights) for gap in gaps], axis=0)
        found: dict[str, Any] = {name: interval.to_dict() for name, interval in self.intervals(figures).items()} | {
            "validation": self.validated(),
            "positives": int(self.y.sum()),
        }
        once = np.ones((1, len(self.y)))
        large = [(gap, name) for gap, name in zip(gaps, names, strict=True) if enough(self._labels_of(name), "binary")]
        if large:
            worst, name = max((float(gap(once).mean()), name) for gap, name in large)
            found["worst"] = {"subset": name, "gap": worst}
        return found | self._best_left()

    def _best_left(self) -> dict[str, float]:
        if not set(self.left) <= set(self._best):
            return {}
        best = np.array([self._best[name][row] for row, name in enumerate(self.left)])
        return {"best": point(auroc, self.y, best)}

    def intervals(self, figures: Mapping[str, PerSeed]) -> dict[str, Interval]:
        """Intervals from the same resamples of subjects and seeds."""

        def every(weights: Array) -> Array:
            return np.stack([figure(weights) for figure in figures.values()], axis=2)

        statistic = over_seeds(every, len(self.scores[SAME]), seed=0)
        found = intervals(statistic, self.subject, n=self.bootstrap)
        return dict(zip(figures, found, strict=True))


def minus(first: PerSeed, second: PerSeed) -> PerSeed:
    """The difference of two figures, resample by resample and seed by seed."""
    return lambda weights: first(weights) - second(weights)
