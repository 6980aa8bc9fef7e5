"""Metrics of tasks, each over many resamples at once: y (N,), score (N,) or (N, K), weights (R, N) -> (R,).

A study with weight 2 counts twice, with weight 0 not at all; weights of 1 give the textbook metric. NaN where a resample
leaves the metric undefined.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from medssml.statistics import calibration
from medssml.statistics.bootstrap import Array, Interval, Metric, subject_bootstrap

#: A spread of targets below this share of their squares is rounding, as is a distance below this share of their size.
LEAST_SPREAD, EPSILON = 1e-10, 1e-10
KINDS = ("binary", "multiclass", "regression")


def point(metric: Metric, y: Array, score: Array) -> float:
    """The metric on all studies."""
    y = np.asarray(y, dtype=np.float64)
    return float(metric(y, np.asarray(score, dtype=np.float64), np.ones((1, len(y))))[0])


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full(np.broadcast_shapes(above.shape, below.shape), np.nan), where=below > 0)


def _tied(score: Array) -> tuple[Array, Array]:
    """Order by score, and where each group of equal scores starts in it."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def auroc(y: Array, score: Array, weights: Array) -> Array:
    """Probability that a positive study scores above a negative one; ties count half."""
    order, starts = _tied(score)
    drawn, positive = weights[:, order], y[order] == 1
    positives = np.add.reduceat(drawn * positive, starts, axis=1)
    negatives = np.add.reduceat(drawn * ~positive, starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    won = (positives * (below + 0.5 * negatives)).sum(axis=1)
    return _ratio(won, positives.sum(axis=1) * negatives.sum(axis=1))


def averaged(metric: Metric, strata: Array) -> Metric:
    """The mean of a metric of two classes over strata (N,) of the studies, those with one class left out.

    Scores of different models or cohorts are on different scales: a study of one is never ranked against one of another.
    """
    groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]

    def mean(y: Array, score: Array, weights: Array) -> Array:
        parts = [rows for rows in groups if len(np.unique(y[rows])) > 1]
        if not parts:
            return np.full(len(weights), np.nan)
        return np.mean([metric(y[rows], score[rows], weights[:, rows]) for rows in parts], axis=0)

    return mean


def auprc(y: Array, score: Array, weights: Array) -> Array:
    """Average precision: the step-wise area under precision over recall."""
    order, starts = _tied(-score)
    drawn, positive = weights[:, order], y[order] == 1
    positives = np.add.reduceat(drawn * positive, starts, axis=1)
    everyone = np.cumsum(np.add.reduceat(drawn, starts, axis=1), axis=1)
    precision = np.divide(np.cumsum(positives, axis=1), everyone, out=np.zeros_like(everyone), where=everyone > 0)
    return _ratio((positives * precision).sum(axis=1), positives.sum(axis=1))


def balanced_accuracy(y: Array, score: Array, weights: Array, *, threshold: float = 0.5) -> Array:
    """Mean of sensitivity and specificity at `threshold`."""
    positive, called = y == 1, score >= threshold
    sensitivity = _ratio(weights @ (positive & called), weights @ positive)
    specificity = _ratio(weights @ (~positive & ~called), weights @ ~positive)
    return (sensitivity + specificity) / 2


def brier(y: Array, score: Array, weights: Array) -> Array:
    """Mean squared distance of the probability from the outcome."""
    return _ratio(weights @ (score - y) ** 2, weights.sum(axis=1))


def choose_threshold(y: Array, score: Array) -> float:
    """The score that maximises balanced accuracy: for validation studies, never for the studies that are reported.

    Returns:
        A midpoint between two neighbouring scores; 0.5 where only one class is labelled.
    """
    y, score = np.asarray(y), np.asarray(score)
    if len(np.unique(y)) < 2:
        return 0.5
    distinct = np.unique(score)
    cuts = np.r_[distinct[0], (distinct[1:] + distinct[:-1]) / 2]
    called = score[None, :] >= cuts[:, None]
    balanced = called[:, y == 1].mean(axis=1) + (~called[:, y != 1]).mean(axis=1)
    return float(cuts[int(np.argmax(balanced))])


def _one_versus_rest(metric: Metric, y: Array, score: Array, weights: Array) -> Array:
    return np.mean([metric((y == k).astype(float), score[:, k], weights) for k in _occurring(y)], axis=0)


def _occurring(y: Array) -> list[int]:
    """The classes that anybody has: one that nobody has can be neither found nor missed."""
    return [int(k) for k in np.unique(y)]


def macro_auroc(y: Array, score: Array, weights: Array) -> Array:
    """Mean over the classes that occur of one-versus-rest AUROC; undefined in a resample that lacks one of them."""
    return _one_versus_rest(auroc, y, score, weights)


def macro_auprc(y: Array, score: Array, weights: Array) -> Array:
    """Mean over the classes that occur of one-versus-rest average precision; undefined in a resample that lacks one."""
    return _one_versus_rest(auprc, y, score, weights)


def macro_recall(y: Array, score: Array, weights: Array) -> Array:
    """Balanced accuracy of K classes: the mean over the classes that occur of the share that is called right."""
    called = score.argmax(axis=1)
    recalls = [_ratio(weights @ ((y == k) & (called == k)), weights @ (y == k)) for k in _occurring(y)]
    return np.mean(recalls, axis=0)


def macro_brier(y: Array, score: Array, weights: Array) -> Array:
    """Mean squared distance of the K probabilities from the outcome, summed over the classes."""
    outcome = np.eye(score.shape[1])[y.astype(int)]
    return _ratio(weights @ ((score - outcome) ** 2).sum(axis=1), weights.sum(axis=1))


def r2(y: Array, score: Array, weights: Array) -> Array:
    """Share of the variance that is explained; undefined where all targets are one."""
    total, level = weights.sum(axis=1), y.mean() if len(y) else 0.0
    # From the mean of all: the difference of two large squares would be rounding.
    centred = y - level
    squares = weights @ centred**2
    spread = squares - total * _ratio(weights @ centred, total) ** 2
    spread = np.where(spread > LEAST_SPREAD * (squares + total * (EPSILON * level) ** 2), spread, 0.0)
    return 1 - _ratio(weights @ (y - score) ** 2, spread)


def mae(y: Array, score: Array, weights: Array) -> Array:
    """Mean absolute error, in the unit of the target."""
    return _ratio(weights @ np.abs(y - score), weights.sum(axis=1))


def metrics_of(kind: str, *, threshold: float = 0.5) -> dict[str, Metric]:
    """Name -> metric of a kind of task; binary scores are probabilities, multiclass scores (N, K) probabilities.

    Raises:
        ValueError: unknown kind.
    """
    if kind == "binary":
        return {
            "auroc": auroc,
            "auprc": auprc,
            "balanced_accuracy": partial(balanced_accuracy, threshold=threshold),
            "brier": brier,
            "ece": calibration.calibration_error,
            "calibration_slope": calibration.slope,
            "calibration_intercept": calibration.intercept,
        }
    if kind == "multiclass":
        return {"auroc": macro_auroc, "auprc": macro_auprc, "balanced_accuracy": macro_recall, "brier": macro_brier}
    if kind == "regression":
        return {"r2": r2, "mae": mae}
    raise ValueError(f"unknown kind of task {kind!r}; known: {', '.join(KINDS)}")


def why_undefined(kind: str, y: Array) -> str | None:
    """Why no metric can be had from these targets, or None."""
    if len(y) == 0:
        return "no labelled study"
    if kind == "binary" and len(np.unique(y)) < 2:
        return f"all {len(y)} labelled studies are of one class"
    return None


def score_task(
    kind: str,
    y: Array,
    score: Array,
    subjects: Array,
    *,
    n: int = 1000,
    seed: int = 0,
    threshold: float = 0.5,
    names: tuple[str, ...] | None = None,
) -> dict[str, Interval]:
    """Every metric of a task with its interval; studies without a label (NaN) are left out.

    Args:
        kind: binary, multiclass or regression.
        y: (N,) targets, NaN where unlabelled.
        score: (N,) probability or prediction, or (N, K) probabilities.
        subjects: (N,) ids.
        n: resamples.
        seed: of the resamples.
        threshold: of balanced accuracy.
        names: only these metrics.
    """
    y, score, subjects = (np.asarray(a) for a in (y, score, subjects))
    labelled = np.isfinite(y)
    y, score, subjects = y[labelled].astype(np.float64), score[labelled].astype(np.float64), subjects[labelled]
    chosen: Mapping[str, Metric] = metrics_of(kind, threshold=threshold)
    reason = why_undefined(kind, y)
    out: dict[str, Interval] = {}
    for name, metric in chosen.items():
        if names is not None and name not in names:
            continue
        if reason is not None:
            out[name] = Interval(None, None, None, len(y), reason=reason)
        else:
            out[name] = subject_bootstrap(metric, y, score, subjects, n=n, seed=seed)
    return out
