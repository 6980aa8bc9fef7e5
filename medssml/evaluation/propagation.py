"""Labels that spread from labelled studies to similar ones, and how well they do so for studies whose label is known.

Zhou et al. 2004, Learning with local and global consistency (NIPS); by scikit-learn. The graph and the certainty: Iscen et al.
2019, Label propagation for deep semi-supervised learning (CVPR).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from medssml.evaluation.probes import FOLDS, cannot_fit
from medssml.evaluation.study_vectors import StudyVectors
from medssml.statistics.bootstrap import Array, Metric
from medssml.statistics.comparison import subject_folds
from medssml.statistics.metrics import auroc, macro_auroc, point

NEIGHBOURS = 10
#: How much of a study's answer is that of its neighbours, and not its own label. Both papers have 0.99, by which labels travel so
#: far that a class as rare as one in ten is found nowhere; at 0.8 answers are as often right as they are sure.
ALPHA = 0.8
ROUNDS, TOLERANCE = 1000, 1e-6
#: Certainties from which on the held-out labels are counted.
LEVELS = (0.0, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Propagation:
    """What became of one task's labels.

    Args:
        probability: (N, K) of each class; NaN for a study that no label reaches.
        held_out: (N, K) the same of labelled studies, spread from the labels of the other folds' subjects; NaN elsewhere.
    """

    probability: Array
    held_out: Array

    def check(self, y: Array, kind: str) -> dict[str, Any]:
        """How well held-out labels were told; y (N,).

        Returns:
            auroc; of every level of certainty the share of the labelled studies that reach it and how many of them are right;
            majority: right if all were of the commonest class.
        """
        asked = np.isfinite(y)
        told = asked & np.isfinite(self.held_out).all(axis=1)
        shown, truth = self.held_out[told], y[told].astype(int)
        metric: Metric = auroc if kind == "binary" else macro_auroc
        right, sure = shown.argmax(axis=1) == truth, certainty(shown)
        return {
            "labels": int(asked.sum()),
            "auroc": round(float(point(metric, y[told], shown[:, 1] if kind == "binary" else shown)), 4),
            "majority": round(float(np.bincount(y[asked].astype(int)).max() / max(asked.sum(), 1)), 4),
            "by_certainty": [
                {
                    "least": least,
                    "share": round(float((sure >= least).sum() / max(asked.sum(), 1)), 4),
                    "right": round(float(right[sure >= least].mean()), 4) if (sure >= least).any() else None,
                }
                for least in LEVELS
            ],
        }


def propagation(
    vectors: StudyVectors,
    y: Array,
    subjects: Array,
    *,
    kind: str = "binary",
    classes: int = 2,
    neighbours: int = NEIGHBOURS,
    alpha: float = ALPHA,
    seed: int = 0,
) -> Propagation | str:
    """Spreads the labels of a task over the graph of similar studies.

    Args:
        vectors: of N studies.
        y: (N,) places of classes, NaN where unlabelled.
        subjects: (N,) ids: in the held-out check nobody's labels reach himself.
        kind: binary or multiclass. classes: K.
        neighbours: of each study in the graph. alpha: above 0 and below 1. seed: of the folds.

    Returns:
        what was found, or why nothing can be.
    """
    known = np.flatnonzero(np.isfinite(y))
    if (reason := cannot_fit(kind, y[known])) is not None:
        return reason
    graph = vectors.neighbour_graph(neighbours)
    held_out = np.full((len(y), classes), np.nan)
    count = min(FOLDS, len(np.unique(subjects[known])))
    if count < 2:
        return "all labels are of one subject"
    fold = subject_folds([str(subject) for subject in subjects[known]], list(y[known]), count, seed=seed)
    for number in np.unique(fold):
        asked = known[fold == number]
        hidden = y.copy()
        hidden[asked] = np.nan
        held_out[asked] = spread(graph, hidden, classes, alpha)[asked]
    return Propagation(spread(graph, y, classes, alpha), held_out)


def spread(graph: Any, y: Array, classes: int, alpha: float = ALPHA) -> Array:
    """(N, K) rows of the limit of F <- alpha S F + (1 - alpha) Y, made to sum to 1; NaN where no label reaches.

    S is the graph (N, N), normalised by the degrees of both ends, Y the known labels y (N,) as rows of 0 and 1.
    """
    from sklearn.semi_supervised import LabelSpreading

    model = LabelSpreading(kernel=lambda *_: graph, alpha=alpha, max_iter=ROUNDS, tol=TOLERANCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The graph stands for the studies: scikit-learn need not see their vectors.
        model.fit(np.zeros((len(y), 1)), np.where(np.isfinite(y), y, -1).astype(int))
    found = np.nan_to_num(model.label_distributions_)
    reached = found.sum(axis=1) > 0
    out = np.full((len(y), classes), np.nan)
    out[reached] = 0.0
    out[np.ix_(reached, model.classes_)] = found[reached]
    return out


def certainty(probability: Array) -> Array:
    """(N,) 1 - entropy / log K of probabilities (N, K): 1 where one class has all, 0 where all classes are as likely."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(probability > 0, probability * np.log(probability), 0.0)
    terms = np.where(np.isfinite(probability), terms, np.nan)
    return np.asarray((1 + terms.sum(axis=1) / np.log(probability.shape[1])).clip(0, 1))
