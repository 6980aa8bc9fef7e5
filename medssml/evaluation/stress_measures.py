"""What obstacles cost: the metric over severity, its mean, the worst subset, calibration, certainty, and the gap to Bayes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medssml.evaluation.encoded_studies import subset_name
from medssml.evaluation.paired_runs import METRIC
from medssml.evaluation.stress import Answers
from medssml.statistics.bootstrap import Array, Interval, Metric, intervals, paired_bootstrap, subject_bootstrap
from medssml.statistics.metrics import metrics_of, point, why_undefined

#: Labelled studies, and of each class, below which a subset is not called the worst.
LEAST, LEAST_OF_CLASS = 20, 5


@dataclass(frozen=True)
class Question:
    """One task on N studies.

    Args:
        task: its name. kind: binary, multiclass or regression.
        y: (N,) targets, NaN where unlabelled.
        subject: (N,) ids; equal ids are one person.
        modalities: bit j of what a study was answered from is `modalities[j]`.
        best: subset name -> (N,) the best possible probability, where the truth is known.
        bootstrap: resamples. seed: of them.
    """

    task: str
    kind: str
    y: Array
    subject: Array
    modalities: tuple[str, ...]
    best: Mapping[str, Array] | None = None
    bootstrap: int = 1000
    seed: int = 0

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return METRIC[self.kind]

    @property
    def rows(self) -> Array:
        """(n,) labelled studies."""
        return np.flatnonzero(np.isfinite(self.y))

    def of(self, metric: Metric, score: Array) -> Interval:
        """A metric of answers to the labelled studies (n,) or (n, K), with its interval."""
        y = self.y[self.rows]
        if reason := why_undefined(self.kind, y):
            return Interval(None, None, None, len(y), reason=reason)
        return subject_bootstrap(metric, y, score, self.subject[self.rows], n=self.bootstrap, seed=self.seed)


def measured(question: Question, answers: Mapping[float, Answers], *, absent: bool) -> dict[str, Any]:
    """The entry of one task and one obstacle in stress.json.

    Args:
        question: the task.
        answers: severity -> what the model answers, 0 among them.
        absent: the obstacle takes modalities away: the best possible answer is then that from what is left; otherwise it is
            that from studies without the damage, which no model can hold.

    Returns:
        {"area": interval of the mean over severity, "points": one entry per severity, ascending}
    """
    severities = sorted(answers)
    scores = {s: answers[s].scores[question.task][question.rows] for s in severities}
    points = [_point(question, s, scores, answers, absent) for s in severities]
    return {"area": _area(question, severities, scores).to_dict(), "points": points}


def _point(
    question: Question, severity: float, scores: Mapping[float, Array], answers: Mapping[float, Answers], absent: bool
) -> dict[str, Any]:
    """One severity: the metric, what it costs, and how sure the model is."""
    metrics, rows, score = metrics_of(question.kind), question.rows, scores[severity]
    y, subject, left = question.y[rows], question.subject[rows], answers[severity].left[rows]
    had, width = answers[0.0].left[rows], 1 << np.arange(len(question.modalities))
    entry: dict[str, Any] = {
        "severity": severity,
        "n": len(rows),
        "left": float(((left[:, None] & width) > 0).sum() / max(((had[:, None] & width) > 0).sum(), 1)),
        question.metric: question.of(metrics[question.metric], score).to_dict(),
    }
    if why_undefined(question.kind, y) is None:
        draws = {"n": question.bootstrap, "seed": question.seed}
        cost = paired_bootstrap(metrics[question.metric], y, scores[0.0], score, subject, **draws)
        entry["cost"] = cost.to_dict()
    if question.kind == "binary":
        entry["positives"] = int(y.sum())
        entry["ece"] = question.of(metrics["ece"], score).to_dict()
    if question.kind != "regression":
        entry |= certainty(y, score)
    entry["worst"] = worst_subset(question, left, score)
    if question.best is not None and question.kind == "binary":
        entry["bayes"] = _against_best(
            question, left if absent else had, score, "what is left" if absent else "undamaged"
        )
    return entry


def certainty(y: Array, score: Array) -> dict[str, float]:
    """How sure a model is, how often it is right, and how often among the half of the studies that it is surest of.

    The last is its accuracy were it to abstain from the other half.

    Args:
        y: (n,) classes. score: (n,) or (n, K) probabilities.
    """
    every = np.stack([1 - score, score], axis=1) if score.ndim == 1 else score
    sure, right = every.max(axis=1), every.argmax(axis=1) == y
    surest = np.argsort(-sure, kind="stable")[: (len(y) + 1) // 2]
    return {
        "confidence": float(sure.mean()),
        "accuracy": float(right.mean()),
        "accuracy_of_surer_half": float(right[surest].mean()),
    }


def enough(y: Array, kind: str) -> bool:
    """Whether labels (n,) are so many, and of so many of each class, that their subset may be called the worst.

    The worst of many subsets is the smallest one otherwise, by chance.
    """
    few = kind == "binary" and min((y == 0).sum(), (y == 1).sum()) < LEAST_OF_CLASS
    return len(y) >= LEAST and not few and not why_undefined(kind, y)


def worst_subset(question: Question, left: Array, score: Array) -> dict[str, Any] | None:
    """The modalities that studies were answered from for which the metric is lowest; None where no subset has enough.

    Args:
        question: the task. left: (n,) bits. score: (n,) or (n, K), both of the labelled studies.
    """
    y = question.y[question.rows]
    metric = metrics_of(question.kind)[question.metric]
    found: list[dict[str, Any]] = []
    for mask in np.unique(left):
        rows = np.flatnonzero(left == mask)
        if mask == 0 or not enough(y[rows], question.kind):
            continue
        value = point(metric, y[rows], score[rows])
        if np.isfinite(value):
            name = subset_name(int(mask), question.modalities)
            found.append({"subset": name, "n": len(rows), question.metric: value})
    return min(found, key=lambda entry: float(entry[question.metric])) if found else None


def _against_best(question: Question, left: Array, score: Array, of: str) -> dict[str, Any]:
    """The metric of the best possible answers, and by how much the model falls short of them."""
    best_of = question.best or {}
    rows, y = question.rows, question.y[question.rows]
    columns = {int(mask): best_of[subset_name(int(mask), question.modalities)][rows] for mask in np.unique(left)}
    best = np.array([columns[int(mask)][row] for row, mask in enumerate(left)], dtype=np.float64)
    metric = metrics_of("binary")["auroc"]
    if not np.isfinite(best).all() or why_undefined("binary", y):
        return {"of": of, "auroc": None, "gap": None, "reason": "the truth does not know these studies"}
    draws = {"n": question.bootstrap, "seed": question.seed}
    gap = paired_bootstrap(metric, y, best, score, question.subject[rows], **draws)
    return {"of": of, "auroc": question.of(metric, best).to_dict(), "gap": gap.to_dict()}


def _area(question: Question, severities: Sequence[float], scores: Mapping[float, Array]) -> Interval:
    """The mean of the metric over severity, by the trapezoid rule, a resample of subjects applying to all severities."""
    y, metric = question.y[question.rows], metrics_of(question.kind)[question.metric]
    if reason := why_undefined(question.kind, y):
        return Interval(None, None, None, len(y), reason=reason)
    if len(severities) < 2:
        return Interval(None, None, None, len(y), reason="one severity")
    span = severities[-1] - severities[0]

    def mean(weights: Array) -> Array:
        values = np.stack([metric(y, scores[s], weights) for s in severities], axis=1)
        return np.asarray(np.trapezoid(values, severities, axis=1) / span)

    return intervals(mean, question.subject[question.rows], n=question.bootstrap, seed=question.seed)[0]
