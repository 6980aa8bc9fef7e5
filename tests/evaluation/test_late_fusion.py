"""Late fusion against loops over studies, subsets and modalities; stacking against scikit-learn."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from medssml.evaluation.late_fusion import RULES, late_fusion
from medssml.evaluation.subsets import Predictions

MODALITIES = ("ct", "xray", "report")


def predictions(n: int = 40, kind: str = "binary", seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    classes = 3 if kind == "multiclass" else 1
    y = rng.integers(0, max(classes, 2), n).astype(float)
    present = rng.random((n, 3)) < 0.7
    present[0], present[1] = True, False
    logits = rng.normal(size=(n, 8, classes))
    logits[:, 4] *= 3
    for m in range(3):  # CT says most, the report nothing, and that loudly
        logits[:, 1 << m] += (2.0, 1.0, 0.0)[m] * (y[:, None] == (np.arange(classes) if classes > 1 else 1)) - 0.7
    logits = logits if classes > 1 else logits[..., 0]
    return Predictions(
        outputs={"t": logits}, kinds={"t": kind}, present=present, modalities=MODALITIES,
        study_id=tuple(map(str, range(n))), subject=np.arange(n), targets={"t": y},
    )  # fmt: skip


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def of_subset(given, study, subset):
    return [m for m in range(3) if subset >> m & 1 and given.present[study, m]]


def by_hand(rule, given, study, members, weights, prior):
    """Probability of the positive class."""
    p = [sigmoid(given.outputs["t"][study, 1 << m]) for m in members]
    if rule == "vote":
        return sum(x >= 0.5 for x in p) / len(p)
    if rule == "mean":
        return sum(p) / len(p)
    if rule == "weighted":
        return sum(weights[MODALITIES[m]] * x for m, x in zip(members, p, strict=True)) / sum(
            weights[MODALITIES[m]] for m in members
        )
    yes, no = (math.prod(x) / q ** (len(x) - 1) for x, q in ((p, prior), ([1 - x for x in p], 1 - prior)))
    return yes / (yes + no)


@pytest.mark.parametrize("rule", ["vote", "mean", "weighted", "product"])
def test_a_rule_is_its_formula_for_every_subset(rule):
    given, weights = predictions(), {"ct": 3.0, "xray": 1.0, "report": 0.5}
    joined = late_fusion(given, rule, weights=weights, prior={"t": (0.7, 0.3)})
    found = joined.probabilities("t")
    for study in range(len(given)):
        for subset in range(8):
            members = of_subset(given, study, subset)
            if not members:
                assert joined.outputs["t"][study, subset] == given.outputs["t"][study, subset]
                continue
            expected = by_hand(rule, given, study, members, weights, 0.3)
            assert found[study, subset] == pytest.approx(expected, abs=2e-6), (study, subset)


def test_a_modality_alone_is_answered_as_it_was():
    given = predictions()
    for rule in ("mean", "product"):
        joined = late_fusion(given, rule)
        for m in range(3):
            has = given.present[:, m]
            np.testing.assert_allclose(joined.outputs["t"][has, 1 << m], given.outputs["t"][has, 1 << m], rtol=1e-3)


def test_absent_answers_may_be_anything():
    given = predictions()
    wild = {"t": given.outputs["t"].copy()}
    for m in range(3):
        wild["t"][~given.present[:, m], 1 << m] = np.nan
    for rule in ("vote", "mean", "product"):
        a, b = (late_fusion(g, rule).outputs["t"] for g in (given, replace(given, outputs=wild)))
        some = np.array([[bool(of_subset(given, s, subset)) for subset in range(8)] for s in range(len(given))])
        np.testing.assert_array_equal(a[some], b[some])


def test_classes_are_voted_for_averaged_and_multiplied():
    given = predictions(kind="multiclass")
    mean, vote, product = (late_fusion(given, rule).probabilities("t") for rule in ("mean", "vote", "product"))
    for study in range(len(given)):
        members = of_subset(given, study, 7)
        if not members:
            continue
        logits = np.array([given.outputs["t"][study, 1 << m] for m in members])
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(mean[study, 7], p.mean(0), atol=1e-5)
        np.testing.assert_allclose(vote[study, 7], np.bincount(p.argmax(1), minlength=3) / len(p), atol=1e-5)
        np.testing.assert_allclose(product[study, 7], p.prod(0) / p.prod(0).sum(), atol=1e-5)


def test_stacking_learns_whom_to_believe_on_other_studies():
    validation, given = predictions(300, seed=1), predictions(300, seed=2)
    joined = late_fusion(given, "stacked", validation=validation)
    full = given.present.all(axis=1)
    scores = [
        roc_auc_score(given.targets["t"][full], one.outputs["t"][full, 7])
        for one in (joined, late_fusion(given, "mean"))
    ]
    assert scores[0] > scores[1] + 0.02

    # Of studies that have all: the slopes of a logistic regression that is hardly penalised, but for its own penalty.
    known = validation.present.all(axis=1)
    x = validation.outputs["t"][known][:, [1, 2, 4]]
    slopes = LogisticRegression(C=1e6).fit(x, validation.targets["t"][known]).coef_[0]
    whole, without = (joined.outputs["t"][full][:, s] for s in (7, 6))
    answer = given.outputs["t"][full][:, 1]
    slope = np.polyfit(answer, whole - without, 1)[0]
    assert slope == pytest.approx(slopes[0], rel=0.35) and slope > 0.3


def test_a_regression_has_means_and_no_votes():
    given = predictions(kind="regression")
    found = late_fusion(given, "mean").outputs["t"]
    for study in range(len(given)):
        if members := of_subset(given, study, 7):
            expected = np.mean([given.outputs["t"][study, 1 << m] for m in members])
            assert found[study, 7] == pytest.approx(expected)
    with pytest.raises(ValueError, match="is a regression, which has no vote"):
        late_fusion(given, "vote")


def test_what_a_rule_needs_is_said():
    given = predictions()
    with pytest.raises(ValueError, match=f"accepted: {', '.join(RULES)}"):
        late_fusion(given, "median")
    with pytest.raises(ValueError, match="needs `weights` of each of ct, xray, report"):
        late_fusion(given, "weighted", weights={"ct": 1.0})
    with pytest.raises(ValueError, match="needs `validation`"):
        late_fusion(given, "stacked")
