"""Calibration by hand: bins, error, curve, and the two numbers of the logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from medssml.statistics import calibration
from medssml.statistics.calibration import calibration_error, curve, equal_mass_bins, intercept, slope

ONCE = np.ones((1, 6))


def test_bins_hold_as_many_studies_each_and_never_part_equal_scores() -> None:
    assert equal_mass_bins(np.arange(20.0)).tolist() == [i // 2 for i in range(20)]
    assert equal_mass_bins(np.arange(20.0), 4).tolist() == [i // 5 for i in range(20)]
    assert equal_mass_bins(np.array([0.1, 0.9, 0.9, 0.9])).tolist() == [0, 1, 1, 1]
    assert len(set(equal_mass_bins(np.array([0.3, 0.3])))) == 1
    scores = np.random.default_rng(0).random(100)
    counts = np.bincount(equal_mass_bins(scores))
    assert counts.tolist() == [10] * 10
    assert equal_mass_bins([0.2, 0.8], 2).tolist() == [0, 1], "a list will do"


def test_the_error_weighs_bins_by_their_mass_and_forgets_empty_ones() -> None:
    y, p = np.array([0, 1, 0, 1, 1, 1.0]), np.array([0.2, 0.2, 0.2, 0.7, 0.7, 0.7])
    weights = np.array([[1, 1, 1, 1, 1, 1], [3, 0, 0, 1, 0, 0], [0, 2, 1, 0, 0, 0]], dtype=float)
    expected = [(abs(1 / 3 - 0.2) + 0.3) / 2, (3 * 0.2 + 0.3) / 4, 2 / 3 - 0.2]
    np.testing.assert_allclose(calibration_error(y, p, weights, bins=2), expected)
    np.testing.assert_allclose(calibration_error(y, p, ONCE, bins=1), [4 / 6 - 0.45], atol=1e-12)
    spread = np.arange(40) / 40
    np.testing.assert_allclose(
        calibration_error(np.zeros(40), spread, np.ones((1, 40))),
        calibration_error(np.zeros(40), spread, np.ones((1, 40)), bins=10),
    )
    assert calibration_error(np.r_[np.zeros(20), np.ones(20)], spread, np.ones((1, 40)))[0] != pytest.approx(
        calibration_error(np.r_[np.zeros(20), np.ones(20)], spread, np.ones((1, 40)), bins=1)[0]
    )


def test_the_curve_has_a_point_for_every_bin() -> None:
    found = curve([0, 1, 0, 1, 1, 1.0], [0.2, 0.2, 0.2, 0.7, 0.7, 0.7], bins=2)
    assert found == [
        {"expected": pytest.approx(0.2), "observed": pytest.approx(1 / 3), "n": 3},
        {"expected": pytest.approx(0.7), "observed": 1.0, "n": 3},
    ]
    assert len(curve(np.zeros(40), np.arange(40) / 40)) == 10
    assert [row["n"] for row in curve([0.0, 1, 1], [0.1, 0.5, 0.9])] == [1, 1, 1], "a bin of one study counts"
    assert all(type(row["n"]) is int and type(row["expected"]) is float for row in found)


def logits(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = 1.5 * rng.normal(size=n)
    return (rng.random(n) < 1 / (1 + np.exp(-x))).astype(float), x


@pytest.mark.parametrize("shift", [-6.0, 0.0, 6.0])
def test_the_intercept_makes_the_mean_right(shift: float) -> None:
    y, x = logits()
    p = 1 / (1 + np.exp(-(x - shift)))
    weights = np.random.default_rng(1).integers(0, 3, size=(4, 300)).astype(float)
    moved = intercept(y, p, weights)
    assert moved.shape == (4,)
    corrected = 1 / (1 + np.exp(-(moved[:, None] + x - shift)))
    np.testing.assert_allclose((weights * corrected).sum(1), (weights * y).sum(1), rtol=1e-7)


def test_without_one_class_there_is_no_intercept() -> None:
    assert np.isnan(intercept(np.ones(6), np.full(6, 0.5), ONCE))
    assert np.isnan(intercept(np.zeros(6), np.full(6, 0.5), ONCE))
    y, p = np.array([0, 1, 1, 0, 1, 0.0]), np.full(6, 0.5)
    found = intercept(y, p, np.array([[1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 1, 0], [1, 1, 0, 0, 0, 0.0]]))
    assert np.isnan(found[:2]).all() and found[2] == pytest.approx(0)


@pytest.mark.parametrize("stretch", [0.2, 1.0, 3.0])
def test_slope_and_its_intercept_are_those_of_scikit_learn(stretch: float) -> None:
    y, x = logits()
    p = 1 / (1 + np.exp(-(stretch * x + 0.7)))
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit((stretch * x + 0.7)[:, None], y)
    once = np.ones((1, 300))
    assert slope(y, p, once)[0] == pytest.approx(fit.coef_.item(), rel=1e-3)
    a, b = calibration._logistic(y, stretch * x + 0.7, once)
    assert a[0] == pytest.approx(fit.intercept_.item(), abs=1e-3) and b[0] == pytest.approx(fit.coef_.item(), rel=1e-3)


def test_each_resample_has_a_fit_of_its_own() -> None:
    y, x = logits()
    p, weights = 1 / (1 + np.exp(-x)), np.random.default_rng(1).integers(0, 3, size=(3, 300)).astype(float)
    together = slope(y, p, weights)
    np.testing.assert_allclose(together, [slope(y, p, row[None])[0] for row in weights], rtol=1e-6)
    assert len(set(np.round(together, 6))) == 3


def test_certain_answers_are_kept_a_little_from_certain() -> None:
    y, p = np.array([0, 0, 1, 0, 1, 1.0]), np.array([0.0, 0.4, 0.0, 1.0, 1.0, 0.6])
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    assert np.isfinite(slope(y, p, ONCE)).all()
    np.testing.assert_allclose(slope(y, p, ONCE), slope(y, clipped, ONCE))
    assert calibration._logit(np.array([0.0, 0.5, 1.0])) == pytest.approx([-13.815510, 0, 13.815510], rel=1e-5)
    assert calibration._sigmoid(np.array([-1e9, 0.0, 1e9])) == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize(
    ("scores", "separated"),
    [
        ([0.1, 0.2, 0.3, 0.6, 0.7, 0.8], True),
        ([0.9, 0.8, 0.7, 0.3, 0.2, 0.1], True),
        ([0.1, 0.2, 0.5, 0.5, 0.7, 0.8], True),
        ([0.9, 0.8, 0.5, 0.5, 0.2, 0.1], True),
        ([0.1, 0.2, 0.6, 0.5, 0.7, 0.8], False),
        ([0.5, 0.1, 0.2, 0.6, 0.3, 0.1], False),
    ],
)
def test_a_prediction_that_parts_the_classes_has_no_slope(scores: list[float], separated: bool) -> None:
    y = np.array([0, 0, 0, 1, 1, 1.0])
    assert np.isnan(slope(y, np.array(scores), ONCE)[0]) == separated
    both = calibration._logistic(y, np.array(scores), ONCE)
    assert [np.isnan(part[0]) for part in both] == [separated] * 2 and both[0].dtype == float
    # Of what was not drawn, nothing counts.
    x = np.array([*scores, 0.95, 0.05])
    weights = np.array([[1.0] * 6 + [0, 0]])
    assert np.isnan(slope(np.r_[y, 0, 1], x, weights)[0]) == separated
