"""What each modality is worth to the quality of the predictions: labels are needed, and the unit is AUROC (or R2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from medssml.counterfactual.shapley import shapley
from medssml.counterfactual.summary import Resampling
from medssml.evaluation.encoded_studies import bits
from medssml.statistics.bootstrap import Array, Interval, Metric, intervals, over_seeds
from medssml.statistics.metrics import auroc, macro_auroc, r2, why_undefined

#: Kind of task -> name of the metric, the metric, and its value for a prediction that knows nothing.
PERFORMANCE: dict[str, tuple[str, Metric, float]] = {
    "binary": ("auroc", auroc, 0.5),
    "multiclass": ("auroc", macro_auroc, 0.5),
    "regression": ("r2", r2, 0.0),
}


def performance_drop(kind: str, scores: Array, y: Array, has: Array, column: int, how: Resampling) -> Interval:
    """Metric from all that a study has, minus the metric without one modality, over labelled studies that have it.

    Args:
        kind: of the task.
        scores: (S, N, 2^M) or (S, N, 2^M, K) probabilities for every subset.
        y: (N,) targets, NaN where unlabelled.
        has: (N, M) bool.
        column: the modality.
        how: the resampling; it applies to both terms, so the interval is that of a paired difference.
    """
    rows = np.flatnonzero(np.isfinite(y) & has[:, column])
    reason = why_undefined(kind, y[rows])
    if reason is not None:
        return Interval(None, None, None, len(rows), reason=reason)
    metric, full = PERFORMANCE[kind][1], bits(has)[rows]
    with_it = scores[:, rows, full]
    without = scores[:, rows, full & ~(1 << column)]
    target = y[rows]

    def drop(weights: Array) -> Array:
        return np.stack(
            [metric(target, a, weights) - metric(target, b, weights) for a, b in zip(with_it, without, strict=True)],
            axis=1,
        )

    statistic = over_seeds(drop, len(scores), seed=how.seed)
    return intervals(statistic, how.subjects[rows], n=how.n, seed=how.seed, level=how.level)[0]


def performance_game(kind: str, scores: Array, y: Array, weights: Array) -> Array:
    """The metric as a game: A(S) for every subset, (R, 2^M), from scores (N, 2^M[, K]); A(none) is that of no knowledge."""
    _, metric, nothing = PERFORMANCE[kind]
    columns = [metric(y, scores[:, s], weights) for s in range(1, scores.shape[1])]
    return np.stack([np.full(len(weights), nothing), *columns], axis=1)


def performance_shapley(
    kind: str, scores: Array, y: Array, rows: Array, modalities: tuple[str, ...], how: Resampling
) -> dict[str, Any]:
    """modality -> its Shapley share of metric(all) - metric(none), all subsets being scored on the same studies.

    Args:
        kind: of the task.
        scores: (S, N, 2^M[, K]) probabilities.
        y: (N,) targets.
        rows: (N,) bool, the studies to score: those that have every modality, or all for "as observed".
        modalities: names.
        how: the resampling.

    Returns:
        modality -> interval; with a reason instead of numbers where the labels do not allow it.
    """
    chosen = np.flatnonzero(rows & np.isfinite(y))
    reason = why_undefined(kind, y[chosen])
    if reason is not None:
        nothing = Interval(None, None, None, len(chosen), reason=reason).to_dict()
        return dict.fromkeys(modalities, nothing)
    target, kept = y[chosen], scores[:, chosen]

    def split(weights: Array) -> Array:
        return np.stack([shapley(performance_game(kind, s, target, weights)) for s in kept], axis=1)

    statistic = over_seeds(split, len(scores), seed=how.seed)
    found = intervals(statistic, how.subjects[chosen], n=how.n, seed=how.seed, level=how.level)
    return {name: interval.to_dict() for name, interval in zip(modalities, found, strict=True)}
