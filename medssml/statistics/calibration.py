"""Whether a probability of 0.3 comes true three times in ten.

Every function takes y (N,) in {0, 1}, probabilities (N,) and weights (R, N), as in `medssml.statistics.metrics`.

[1] Van Calster et al., Calibration: the Achilles heel of predictive analytics, BMC Medicine 17:230, 2019.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medssml.statistics.bootstrap import Array

BINS = 10
#: Probabilities are kept this far from 0 and 1 before a logit is taken.
EPSILON = 1e-6
#: Newton steps of the two-parameter logistic regression.
STEPS = 25
#: A slope beyond this means that the classes are separated and the fit has no finite answer.
LARGEST = 50.0


def equal_mass_bins(score: Array, bins: int = BINS) -> Array:
    """(N,) bin of each study: as many studies in each, equal scores never apart.

    The bins are of the studies at hand and stay the same in every resample.
    """
    score = np.asarray(score)
    count = max(1, min(bins, len(np.unique(score))))
    edges = np.unique(np.quantile(score, np.linspace(0, 1, count + 1)[1:-1]))
    return np.searchsorted(edges, score, side="right")


def _per_bin(y: Array, score: Array, weights: Array, bins: int) -> tuple[Array, Array, Array]:
    """Mass, mean probability and observed share, each (R, bins); NaN shares in a bin without mass."""
    member = np.eye(bins)[equal_mass_bins(score, bins)]
    mass = weights @ member
    safe = np.where(mass > 0, mass, np.nan)
    return mass, weights @ (member * score[:, None]) / safe, weights @ (member * y[:, None]) / safe


def calibration_error(y: Array, score: Array, weights: Array, *, bins: int = BINS) -> Array:
    """Expected calibration error: the mean over equal-mass bins of |observed share - mean probability|."""
    mass, expected, observed = _per_bin(y, score, weights, bins)
    gap = np.where(mass > 0, mass * np.abs(observed - expected), 0)
    return np.nansum(gap, axis=1) / mass.sum(axis=1)


def curve(y: Array, score: Array, *, bins: int = BINS) -> list[dict[str, Any]]:
    """The reliability diagram: mean probability, observed share and number of studies of every bin."""
    mass, expected, observed = _per_bin(np.asarray(y), np.asarray(score), np.ones((1, len(y))), bins)
    return [
        {"expected": float(e), "observed": float(o), "n": int(m)}
        for m, e, o in zip(mass[0], expected[0], observed[0], strict=True)
        if m > 0
    ]


def slope(y: Array, score: Array, weights: Array) -> Array:
    """Slope of the outcome's logit on the predicted logit: 1 is ideal, below 1 means too extreme predictions [1].

    NaN where the prediction separates the classes, since the fit then has no finite answer.
    """
    return _logistic(y, _logit(score), weights)[1]


def intercept(y: Array, score: Array, weights: Array) -> Array:
    """Calibration in the large: the shift of the predicted logit that makes the mean right; 0 is ideal [1].

    NaN in a resample of one class, which no finite shift makes right.
    """
    logits = _logit(score)
    shift = np.zeros(len(weights))
    for _ in range(STEPS):
        p = _sigmoid(shift[:, None] + logits)
        gradient, curvature = (weights * (y - p)).sum(axis=1), (weights * p * (1 - p)).sum(axis=1)
        shift = shift + np.clip(gradient / np.maximum(curvature, 1e-12), -4, 4)
        if np.abs(gradient).max() < 1e-8:
            break
    positives = weights @ y
    return np.where((positives > 0) & (positives < weights.sum(axis=1)), shift, np.nan)


def _logit(score: Array) -> Array:
    p = np.clip(score, EPSILON, 1 - EPSILON)
    return np.log(p) - np.log1p(-p)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))


def _logistic(y: Array, x: Array, weights: Array) -> tuple[Array, Array]:
    """Intercept and slope (R,) of a logistic regression of y on x in every resample, by Newton's method."""
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(STEPS):
        p = _sigmoid(a[:, None] + b[:, None] * x)
        error, spread = weights * (y - p), weights * p * (1 - p)
        ga, gb = error.sum(axis=1), error @ x
        haa, hab, hbb = spread.sum(axis=1), spread @ x, spread @ x**2
        determinant = np.maximum(haa * hbb - hab**2, 1e-12)
        a = a + np.clip((hbb * ga - hab * gb) / determinant, -4, 4)
        b = b + np.clip((haa * gb - hab * ga) / determinant, -4, 4)
        if max(np.abs(ga).max(), np.abs(gb).max()) < 1e-8:
            break
    settled = (np.abs(b) < LARGEST) & (np.abs(ga) < 1e-3) & ~_separated(y, x, weights)
    return np.where(settled, a, np.nan), np.where(settled, b, np.nan)


def _separated(y: Array, x: Array, weights: Array) -> Array:
    """(R,) bool: no drawn negative lies above a drawn positive, or none below."""
    negative, positive = (weights > 0) & (y == 0), (weights > 0) & (y == 1)
    low = [np.where(drawn, x, np.inf).min(axis=1) for drawn in (negative, positive)]
    high = [np.where(drawn, x, -np.inf).max(axis=1) for drawn in (negative, positive)]
    return (high[0] <= low[1]) | (high[1] <= low[0])
