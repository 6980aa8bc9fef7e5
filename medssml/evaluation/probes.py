"""What an embedding holds: a linear probe and the nearest neighbours, fitted on the training studies.

Nothing is chosen on the studies that are reported: the strength of the regularisation comes from the validation studies,
or from folds of the training subjects where these are too few.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from medssml.evaluation.feature_scale import feature_scale
from medssml.statistics.bootstrap import Array, Metric
from medssml.statistics.metrics import auroc, macro_auroc, point, r2

#: Inverse strengths of the L2 penalty that are tried.
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
#: Fewer labelled validation studies than this do not choose.
LEAST_VALIDATION = 30
LEAST_PER_CLASS = 5
FOLDS = 4
#: So often are the training studies divided into folds: of a hundred studies one division chooses by luck.
DIVISIONS = 5
NEIGHBOURS = 20
#: How far the logit of a class without a training study lies below the others'.
UNSEEN = 30.0
#: Widest embedding for which its Hessian is cheap.
NEWTON_WIDTH = 512


@dataclass(frozen=True)
class Probe:
    """A probe's answers for the studies asked about, or why there are none.

    Args:
        scores: (n,) probabilities or values, (n, K) for classes; None where it could not be fitted.
        setting: what was chosen, such as {"C": 0.1, "chosen_on": "validation"}.
        reason: why it could not be fitted.
    """

    scores: Array | None
    setting: dict[str, Any]
    reason: str | None = None


@dataclass(frozen=True)
class Readout:
    """A linear map of embeddings: logits x weight' + bias of a class or classes, or the value of a regression.

    Args:
        weight: (K, D), K = 1 for a binary task or a regression.
        bias: (K,).
        kind: binary, multiclass or regression.
        setting: what was chosen, such as {"C": 0.1, "chosen_on": "validation"}.
    """

    weight: Array
    bias: Array
    kind: str
    setting: dict[str, Any] = field(default_factory=dict)

    def scores(self, x: Array) -> Array:
        """(n,) probabilities or values, (n, K) for classes, of embeddings (n, D)."""
        logits = x @ self.weight.T + self.bias
        if self.kind == "multiclass":
            return np.asarray(softmax(logits, axis=1))
        return np.asarray(expit(logits[:, 0]) if self.kind == "binary" else logits[:, 0])


def linear_readout(
    train: Array,
    y: Array,
    subjects: Array,
    *,
    kind: str = "binary",
    validation: tuple[Array, Array] | None = None,
    classes: int = 2,
    seed: int = 0,
    weights: Array | None = None,
    block: int = 0,
) -> Readout | str:
    """Logistic (or ridge) regression on standardised embeddings, as a map of the embeddings as they are.

    Args:
        train: (n, D) embeddings of the training studies.
        y: (n,) targets, NaN where unlabelled.
        subjects: (n,) ids, for the folds.
        kind: binary, multiclass or regression.
        validation: (v, D) embeddings and (v,) targets to choose the regularisation on.
        classes: K of a multiclass task.
        seed: of the folds.
        weights: (n,) of the studies in the fits, above 0; None for 1 each.
        block: how many features, the first ones, share one scale, so that what varies less among them counts less
            (`feature_scale`); the others have one each.

    Returns:
        the map, or why there is none.
    """
    weights = None if weights is None else _labelled(weights, y)[0]
    train, y, subjects = _labelled(train, y, subjects)
    reason = cannot_fit(kind, y)
    if reason is not None:
        return reason
    mean, scale = train.mean(axis=0), feature_scale(train, block)
    train = (train - mean) / scale
    held = None if validation is None else _labelled(*validation)
    if held is not None:
        held = ((held[0] - mean) / scale, held[1])
    strength, chosen_on = _choose(kind, train, y, subjects, held, seed, weights)
    found = _fit(kind, train, y, strength, classes, weights)
    weight = found.weight / scale
    setting = {"C": strength, "chosen_on": chosen_on, "n_train": len(y)}
    return Readout(weight, found.bias - weight @ mean, kind, setting)


def held_out_logits(
    x: Array,
    y: Array,
    subjects: Array,
    strength: float,
    *,
    kind: str = "binary",
    classes: int = 2,
    seed: int = 0,
    weights: Array | None = None,
    block: int = 0,
) -> Array:
    """(n, K) logits, or values, of each labelled study by a readout of the other folds' subjects; NaN where there is none.

    Args:
        x: (n, D). y: (n,) targets, NaN where unlabelled. subjects: (n,) ids: nobody is in two folds.
        strength: C of the penalty.
        kind, classes, seed, weights, block: as `linear_readout`, which has the same folds.
    """
    out = np.full((len(y), classes if kind == "multiclass" else 1), np.nan)
    known = np.flatnonzero(np.isfinite(y))
    x, y = np.asarray(x, dtype=np.float64)[known], np.asarray(y)[known]
    x = (x - x.mean(axis=0)) / feature_scale(x, block)
    for fitted, asked in _folds(kind, y, np.asarray(subjects)[known], seed):
        found = _fit(kind, x[fitted], y[fitted], strength, classes, _of(weights, known[fitted]))
        out[known[asked]] = x[asked] @ found.weight.T + found.bias
    return out


def linear_probe(
    train: Array,
    y: Array,
    subjects: Array,
    asked: Array,
    *,
    kind: str = "binary",
    validation: tuple[Array, Array] | None = None,
    classes: int = 2,
    seed: int = 0,
    block: int = 0,
) -> Probe:
    """What `linear_readout` answers for `asked` (m, D): scores (m,) or (m, K)."""
    found = linear_readout(
        train, y, subjects, kind=kind, validation=validation, classes=classes, seed=seed, block=block
    )
    return Probe(None, {}, found) if isinstance(found, str) else Probe(found.scores(asked), found.setting)


def knn_probe(
    train: Array, y: Array, asked: Array, *, kind: str = "binary", k: int = NEIGHBOURS, classes: int = 2
) -> Probe:
    """The mean target (share of each class) among the k training studies of highest cosine similarity.

    Args:
        train: (n, D). y: (n,) targets, NaN where unlabelled. asked: (m, D).
        kind: binary, multiclass or regression.
        k: neighbours; all studies where there are fewer.
        classes: K of a multiclass task.
    """
    train, y = _labelled(train, y)
    reason = cannot_fit(kind, y)
    if reason is not None:
        return Probe(None, {}, reason)
    k = min(k, len(y))
    similarity = unit(asked) @ unit(train).T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    target = np.eye(classes)[y.astype(int)] if kind == "multiclass" else y
    return Probe(target[nearest].mean(axis=1), {"k": k, "similarity": "cosine", "n_train": len(y)})


def unit(x: Array) -> Array:
    """Rows of x (n, D) at length 1; a row of zeros stays."""
    x = np.asarray(x, dtype=np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _labelled(x: Array, y: Array, *others: Array) -> tuple[Array, ...]:
    known = np.isfinite(y)
    return tuple(np.asarray(a)[known] for a in (x, y, *others))


def cannot_fit(kind: str, y: Array) -> str | None:
    """Why nothing can be fitted to targets y (n,), all known; None where it can."""
    if len(y) == 0:
        return "no labelled training study"
    if kind == "regression":
        return None if len(y) >= LEAST_PER_CLASS else f"only {len(y)} labelled training studies"
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < LEAST_PER_CLASS:
        return f"fewer than {LEAST_PER_CLASS} labelled training studies in a class"
    return None


def _choose(
    kind: str,
    x: Array,
    y: Array,
    subjects: Array,
    held: tuple[Array, ...] | None,
    seed: int,
    weights: Array | None = None,
) -> tuple[float, str]:
    """The strength with the best score on held-out studies, and which studies those were."""
    metric: Metric = r2 if kind == "regression" else auroc if kind == "binary" else macro_auroc
    classes = 2 if kind == "binary" else int(y.max()) + 1 if kind == "multiclass" else 1
    usable = held is not None and len(held[1]) >= LEAST_VALIDATION and cannot_fit(kind, held[1]) is None
    if usable and held is not None:
        parts, chosen_on = [(x, y, weights, held[0], held[1])], "validation"
    else:
        folds = [fold for turn in range(DIVISIONS) for fold in _folds(kind, y, subjects, seed + turn)]
        parts, chosen_on = (
            [(x[a], y[a], _of(weights, a), x[b], y[b]) for a, b in folds],
            "folds of the training subjects",
        )
    scores = [
        np.nanmean(
            [_score(metric, _fit(kind, a, b, strength, classes, w).scores(c), d) for a, b, w, c, d in parts] or [np.nan]
        )
        for strength in STRENGTHS
    ]
    best = float(STRENGTHS[int(np.nanargmax(scores))]) if np.isfinite(scores).any() else 1e-1
    return best, chosen_on


def _of(weights: Array | None, rows: Array) -> Array | None:
    return None if weights is None else np.asarray(weights)[rows]


def _score(metric: Metric, found: Array, y: Array) -> float:
    return point(metric, y, found)


def _folds(kind: str, y: Array, subjects: Array, seed: int) -> list[tuple[Array, Array]]:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    count = min(FOLDS, len(np.unique(subjects)))
    if count < 2:
        return []
    splitter = (
        GroupKFold(count, shuffle=True, random_state=seed)
        if kind == "regression"
        else StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folds = list(splitter.split(np.zeros(len(y)), y, subjects))
    return [(a, b) for a, b in folds if kind == "regression" or len(np.unique(y[a])) == len(np.unique(y))]


def _fit(kind: str, x: Array, y: Array, strength: float, classes: int, weights: Array | None = None) -> Readout:
    from sklearn.linear_model import LogisticRegression, Ridge

    if kind == "regression":
        ridge = Ridge(alpha=1 / strength).fit(x, y, sample_weight=weights)
        return Readout(ridge.coef_[None], np.atleast_1d(ridge.intercept_), kind)
    # Newton's method: a handful of steps where lbfgs takes a hundred.
    narrow = kind == "binary" and x.shape[1] <= NEWTON_WIDTH
    model = LogisticRegression(C=strength, max_iter=1000, solver="newton-cholesky" if narrow else "lbfgs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y.astype(int), sample_weight=weights)
    if kind == "binary":
        return Readout(model.coef_, model.intercept_, kind)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn then gives the second class's alone
        coefficients, intercepts = np.vstack([0 * coefficients, coefficients]), np.r_[0 * intercepts, intercepts]
    # A class that training does not have gets next to no probability.
    size = max(classes, int(model.classes_.max()) + 1)
    weight, bias = np.zeros((size, x.shape[1])), np.full(size, intercepts.min() - UNSEEN)
    weight[model.classes_], bias[model.classes_] = coefficients, intercepts
    return Readout(weight, bias, kind)
