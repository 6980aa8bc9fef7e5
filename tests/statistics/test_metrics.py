"""Metrics against scikit-learn, with weights as repeated studies."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import linear_model
from sklearn import metrics as reference

from medssml.statistics import bootstrap, calibration, metrics


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


def test_a_weight_is_a_repeated_study_for_several_classes_and_for_numbers_too() -> None:
    rng = np.random.default_rng(4)
    y, weights = rng.integers(0, 3, 80).astype(float), rng.integers(0, 4, size=(4, 80)).astype(float)
    p = rng.dirichlet(np.ones(3), 80)
    x = y + rng.normal(size=80)
    for metric, score in (
        (metrics.macro_auroc, p), (metrics.macro_auprc, p), (metrics.macro_recall, p), (metrics.macro_brier, p),
        (metrics.r2, x), (metrics.mae, x),
    ):  # fmt: skip
        repeated = [metrics.point(metric, np.repeat(y, w), np.repeat(score, w, axis=0)) for w in weights.astype(int)]
        np.testing.assert_allclose(metric(y, score, weights), repeated)
    one_hot = np.eye(3)[y.astype(int)]
    assert metrics.point(metrics.macro_auprc, y, p) == pytest.approx(reference.average_precision_score(one_hot, p))
    assert metrics.point(metrics.macro_brier, y, p) == pytest.approx(((p - one_hot) ** 2).sum(axis=1).mean())


def test_every_metric_of_a_kind_and_its_name() -> None:
    assert list(metrics.metrics_of("binary")) == [
        "auroc", "auprc", "balanced_accuracy", "brier", "ece", "calibration_slope", "calibration_intercept",
    ]  # fmt: skip
    assert list(metrics.metrics_of("multiclass")) == ["auroc", "auprc", "balanced_accuracy", "brier"]
    assert list(metrics.metrics_of("regression")) == ["r2", "mae"]
    y, score, weights = sample()
    binary = metrics.metrics_of("binary")
    for name, function in (
        ("auroc", metrics.auroc), ("auprc", metrics.auprc), ("brier", metrics.brier),
        ("balanced_accuracy", metrics.balanced_accuracy), ("ece", calibration.calibration_error),
        ("calibration_slope", calibration.slope), ("calibration_intercept", calibration.intercept),
    ):  # fmt: skip
        np.testing.assert_allclose(binary[name](y, score, weights), function(y, score, weights))
    found = metrics.metrics_of("binary", threshold=0.3)["balanced_accuracy"](y, score, np.ones((1, len(y))))[0]
    assert found == pytest.approx(reference.balanced_accuracy_score(y, score >= 0.3))


def test_a_score_at_the_threshold_is_called() -> None:
    y, score = np.array([0, 0, 1, 1.0]), np.array([0.2, 0.5, 0.5, 0.9])
    assert metrics.point(metrics.balanced_accuracy, y, score) == pytest.approx((1 + 1 / 2) / 2)


def test_a_task_is_scored_on_its_labelled_studies_as_asked() -> None:
    y, score, _ = sample()
    options = {"n": 60, "seed": 2, "threshold": 0.3}
    found = metrics.score_task("binary", y.tolist(), score.tolist(), (np.arange(120) // 2).tolist(), **options)
    assert set(found) == set(metrics.metrics_of("binary"))
    expected = {
        name: bootstrap.subject_bootstrap(metric, y, score, np.arange(120) // 2, n=60, seed=2)
        for name, metric in metrics.metrics_of("binary", threshold=0.3).items()
    }
    assert found == expected
    some = metrics.score_task("binary", y, score, np.arange(120) // 2, names=("brier", "auroc"), n=60, seed=2)
    assert list(some) == ["auroc", "brier"] and some["auroc"] == expected["auroc"]
    default = metrics.score_task("binary", y, score, np.arange(120), names=("balanced_accuracy",))
    assert default["balanced_accuracy"] == bootstrap.subject_bootstrap(
        metrics.balanced_accuracy, y, score, np.arange(120), n=1000, seed=0
    )


def test_why_nothing_can_be_said() -> None:
    assert metrics.why_undefined("binary", np.zeros(0)) == "no labelled study"
    assert metrics.why_undefined("regression", np.zeros(0)) == "no labelled study"
    assert metrics.why_undefined("binary", np.ones(3)) == "all 3 labelled studies are of one class"
    assert metrics.why_undefined("regression", np.ones(3)) is None
    assert metrics.why_undefined("multiclass", np.ones(3)) is None
    assert metrics.why_undefined("binary", np.array([0.0, 1.0])) is None
    nothing = metrics.score_task("regression", np.full(4, np.nan), np.zeros(4), np.arange(4))
    assert set(nothing) == {"r2", "mae"}
    assert all(
        found == bootstrap.Interval(None, None, None, 0, reason="no labelled study") for found in nothing.values()
    )


def test_undefined_resamples_are_nan_and_the_others_stay() -> None:
    y, score = np.array([0, 0, 1, 1.0]), np.array([0.1, 0.6, 0.4, 0.9])
    weights = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0.0]])
    for metric in (metrics.auroc, metrics.balanced_accuracy):
        found = metric(y, score, weights)
        assert np.isnan(found[[0, 2, 3]]).all() and np.isfinite(found[1])
    assert np.isnan(metrics.auprc(y, score, weights)[[0, 3]]).all()
    assert metrics.auprc(y, score, weights)[2] == 1
    for metric in (metrics.brier, metrics.mae, metrics.r2):
        assert np.isnan(metric(y, score, weights)[3]) and np.isfinite(metric(y, score, weights)[1])
    assert np.isnan(metrics.r2(y, score, weights)[0]), "without spread nothing can be explained"


def test_strata_of_one_class_everywhere_say_nothing() -> None:
    found = metrics.averaged(metrics.auroc, np.array([0, 0, 1, 1]))(
        np.array([0, 0, 1, 1.0]), np.arange(4.0), np.ones((3, 4))
    )
    assert found.shape == (3,) and np.isnan(found).all()
    weights = np.array([[1, 1, 2, 1, 1, 1.0], [2, 1, 1, 1, 1, 3.0]])
    y, score, strata = np.array([0, 1, 0, 0, 1, 1.0]), np.array([1, 2, 5, 3, 4, 6.0]), np.array([0, 0, 1, 1, 1, 1])
    by_hand = [(1 + metrics.auroc(y[2:], score[2:], w[None, 2:])[0]) / 2 for w in weights]
    np.testing.assert_allclose(metrics.averaged(metrics.auroc, strata)(y, score, weights), by_hand)


def test_the_threshold_is_a_midpoint_or_below_everything() -> None:
    assert metrics.choose_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.8]) == pytest.approx(0.4)
    assert metrics.choose_threshold([0, 1, 1, 1], [0.1, 0.2, 0.6, 0.8]) == pytest.approx(0.15)
    assert metrics.choose_threshold([0, 0, 0, 1], [0.1, 0.2, 0.6, 0.8]) == pytest.approx(0.7)
    # Worse than chance: to call everybody is as good as anything.
    assert metrics.choose_threshold([1, 0], [0.1, 0.2]) == pytest.approx(0.1)
    assert metrics.choose_threshold(np.array([]), np.array([])) == 0.5


@pytest.mark.parametrize(("level", "sd"), [(0.0, 1.0), (65.0, 10.0), (1e-6, 1e-7), (1e9, 1.0), (-1e9, 0.01)])
def test_r2_is_that_of_scikit_learn_whatever_the_size_of_the_targets(level: float, sd: float) -> None:
    from sklearn.metrics import r2_score

    rng = np.random.default_rng(0)
    z = rng.normal(size=50)
    y, score = level + sd * z, level + sd * (z + rng.normal(size=50) / 2)
    assert metrics.point(metrics.r2, y, score) == pytest.approx(r2_score(y, score), rel=1e-6)
    weights = np.bincount(rng.integers(0, 50, 50), minlength=50)[None].astype(float)
    expected = r2_score(y, score, sample_weight=weights[0])
    assert metrics.r2(y, score, weights)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e-6, 1e9 + 0.1])
def test_r2_of_constant_targets_is_undefined(level: float) -> None:
    y = np.full(30, level)
    assert np.isnan(metrics.point(metrics.r2, y, y + 1e-3))
    y[0] += 1.0
    resampled = np.ones((1, 30))
    resampled[0, 0] = 0
    assert np.isnan(metrics.r2(y, y + 1e-3, resampled)[0])


def test_means_over_classes_are_over_those_that_occur() -> None:
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    rng = np.random.default_rng(0)
    y = rng.choice([0.0, 2.0, 3.0], 60)
    score = rng.dirichlet(np.ones(5), 60)
    expected = np.mean([roc_auc_score(y == k, score[:, k]) for k in (0, 2, 3)])
    assert metrics.point(metrics.macro_auroc, y, score) == pytest.approx(expected)
    assert np.isfinite(metrics.point(metrics.macro_auprc, y, score))
    with np.errstate(all="ignore"):
        recall = balanced_accuracy_score(y, score.argmax(1))
    assert metrics.point(metrics.macro_recall, y, score) == pytest.approx(recall)
