"""Metrics against scikit-learn, with weights as repeated studies."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import linear_model
from sklearn import metrics as reference

from medssml.statistics import calibration, metrics


def sample(n: int = 120, ties: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, n).astype(float)
    score = 1 / (1 + np.exp(-(y + rng.normal(size=n))))
    if ties:
        score = np.round(score, 1).clip(0.05, 0.95)
    return y, score, rng.integers(0, 4, size=(5, n)).astype(float)


BINARY = {
    metrics.auroc: reference.roc_auc_score,
    metrics.auprc: reference.average_precision_score,
    metrics.brier: reference.brier_score_loss,
    metrics.balanced_accuracy: lambda y, s: reference.balanced_accuracy_score(y, s >= 0.5),
}


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("metric", BINARY)
def test_a_weight_is_a_repeated_study(metric, ties: bool) -> None:
    y, score, weights = sample(ties=ties)
    expected = [BINARY[metric](np.repeat(y, w.astype(int)), np.repeat(score, w.astype(int))) for w in weights]
    np.testing.assert_allclose(metric(y, score, weights), expected, atol=1e-12)
    assert metrics.point(metric, y, score) == pytest.approx(BINARY[metric](y, score))


def test_multiclass_and_regression_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90).astype(float)
    logits = rng.normal(size=(90, 3)) + 1.5 * np.eye(3)[y.astype(int)]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert metrics.point(metrics.macro_auroc, y, p) == pytest.approx(reference.roc_auc_score(y, p, multi_class="ovr"))
    assert metrics.point(metrics.macro_recall, y, p) == pytest.approx(reference.balanced_accuracy_score(y, p.argmax(1)))
    x = y + rng.normal(size=90)
    assert metrics.point(metrics.r2, y, x) == pytest.approx(reference.r2_score(y, x))
    assert metrics.point(metrics.mae, y, x) == pytest.approx(reference.mean_absolute_error(y, x))


def test_one_class_is_undefined_and_says_so() -> None:
    assert np.isnan(metrics.point(metrics.auroc, np.ones(9), np.arange(9.0)))
    result = metrics.score_task("binary", np.ones(9), np.linspace(0, 1, 9), np.arange(9))["auroc"]
    assert result.estimate is None and "one class" in str(result.reason)
    with pytest.raises(ValueError, match="binary, multiclass, regression"):
        metrics.metrics_of("ordinal")


def test_unlabelled_studies_are_left_out() -> None:
    y, score, _ = sample()
    gaps = np.r_[y, [np.nan] * 5]
    result = metrics.score_task("binary", gaps, np.r_[score, np.zeros(5)], np.arange(125), n=50)["auroc"]
    assert result.n == 120 and result.estimate == pytest.approx(reference.roc_auc_score(y, score))


def test_threshold_of_the_validation_studies_maximises_balanced_accuracy() -> None:
    y, score, _ = sample(ties=False)
    best = max(reference.balanced_accuracy_score(y, score >= t) for t in np.unique(score))
    assert reference.balanced_accuracy_score(y, score >= metrics.choose_threshold(y, score)) == pytest.approx(best)
    assert metrics.choose_threshold(np.ones(4), score[:4]) == 0.5


def test_calibration_slope_is_the_logistic_regression() -> None:
    y, score, weights = sample()
    logit = np.log(score / (1 - score))[:, None]
    for w, found in zip(weights, calibration.slope(y, score, weights), strict=True):
        fit = linear_model.LogisticRegression(C=np.inf, tol=1e-10).fit(logit, y, sample_weight=w)
        assert found == pytest.approx(fit.coef_.item(), abs=1e-4)


def test_calibration_of_true_probabilities_is_ideal_and_a_shift_is_found() -> None:
    rng = np.random.default_rng(1)
    logit = rng.normal(size=40_000)
    p = 1 / (1 + np.exp(-logit))
    y = (rng.random(40_000) < p).astype(float)
    assert metrics.point(calibration.calibration_error, y, p) < 0.01
    assert metrics.point(calibration.slope, y, p) == pytest.approx(1, abs=0.05)
    assert metrics.point(calibration.intercept, y, p) == pytest.approx(0, abs=0.03)
    shifted = 1 / (1 + np.exp(-(logit - 1)))
    assert metrics.point(calibration.intercept, y, shifted) == pytest.approx(1, abs=0.05)
    half = 1 / (1 + np.exp(-2 * logit))
    assert metrics.point(calibration.slope, y, half) == pytest.approx(0.5, abs=0.03)


def test_calibration_error_by_hand_and_bins_never_split_ties() -> None:
    y = np.array([0, 1, 0, 1, 1, 1.0])
    p = np.array([0.2, 0.2, 0.2, 0.8, 0.8, 0.8])
    assert metrics.point(calibration.calibration_error, y, p) == pytest.approx((abs(1 / 3 - 0.2) + abs(1 - 0.8)) / 2)
    assert [row["n"] for row in calibration.curve(y, p)] == [3, 3]


def test_separated_classes_have_no_slope() -> None:
    y = np.r_[np.zeros(20), np.ones(20)]
    assert np.isnan(
        metrics.point(calibration.slope, y, np.r_[np.full(20, 0.3), np.full(20, 0.6)] + np.linspace(0, 0.1, 40))
    )


def test_the_mean_over_cohorts_never_ranks_one_against_another() -> None:
    rng = np.random.default_rng(0)
    y, cohort = rng.integers(0, 2, 300).astype(float), rng.integers(0, 3, 300)
    score = y + rng.normal(size=300) + 100 * cohort
    expected = np.mean([reference.roc_auc_score(y[cohort == c], score[cohort == c]) for c in range(3)])
    assert metrics.averaged(metrics.auroc, cohort)(y, score, np.ones((1, 300)))[0] == pytest.approx(expected)
    one_class = np.where(cohort == 2, 1.0, y)  # says nothing
    assert metrics.averaged(metrics.auroc, cohort)(one_class, score, np.ones((1, 300)))[0] == pytest.approx(
        np.mean([reference.roc_auc_score(y[cohort == c], score[cohort == c]) for c in range(2)])
    )
