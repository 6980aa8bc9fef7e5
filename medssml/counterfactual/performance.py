"""The quality of the predictions as a game: labels are needed, and the unit is AUROC (or R2)."""

from __future__ import annotations

import numpy as np

from medssml.statistics.bootstrap import Array, Metric
from medssml.statistics.metrics import auroc, macro_auroc, r2

#: Kind of task -> name of the metric, the metric, and its value for a prediction that knows nothing.
PERFORMANCE: dict[str, tuple[str, Metric, float]] = {
    "binary": ("auroc", auroc, 0.5),
    "multiclass": ("auroc", macro_auroc, 0.5),
    "regression": ("r2", r2, 0.0),
}


def performance_game(kind: str, scores: Array, y: Array, weights: Array) -> Array:
    """The metric as a game: A(S) for every subset, (R, 2^M), from scores (N, 2^M[, K]); A(none) is that of no knowledge."""
    _, metric, nothing = PERFORMANCE[kind]
    columns = [metric(y, scores[:, s], weights) for s in range(1, scores.shape[1])]
    return np.stack([np.full(len(weights), nothing), *columns], axis=1)
