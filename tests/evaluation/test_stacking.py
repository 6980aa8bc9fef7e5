"""Stacked readouts: against scikit-learn where there is one part, and against what is known of the data."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from medssml.evaluation.probes import _fit, held_out_logits
from medssml.evaluation.stacking import Part, _loss, stacked_readouts


def whole(x: np.ndarray, has: np.ndarray) -> Part:
    rows = np.flatnonzero(has)
    return Part(x[rows], rows, np.ones(len(rows), bool))


def answers(stack, parts: dict[str, Part], n: int) -> np.ndarray:
    out = np.tile(stack.bias, (n, 1))
    for name, readout in stack.readouts.items():
        part = parts[name]
        out[part.study[part.own]] += part.x[part.own] @ readout.weight.T + readout.bias
    return out


def cohort(n: int, seed: int, width: int = 40):
    """A modality that shows the target in one direction, and three that show nothing; each is absent at times."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(float)
    parts = {}
    for number, name in enumerate(("eeg", "ct", "xray", "report")):
        x = rng.normal(size=(n, width))
        if number == 0:
            x[:, 0] += 2.5 * y
        parts[name] = whole(x, rng.random(n) < 0.8)
    return parts, y


def test_what_says_nothing_gets_next_to_no_weight_and_costs_little():
    train, y = cohort(150, 0)
    test, truth = cohort(2000, 1)
    stack = stacked_readouts(train, y, np.arange(150))
    assert stack.weights["eeg"] > 0.7
    assert max(stack.weights[name] for name in ("ct", "xray", "report")) < 0.35 * stack.weights["eeg"]
    seen = np.zeros((2000, 4), bool)
    joint = np.zeros((2000, 160))
    for column, part in enumerate(test.values()):
        seen[part.study, column] = True
        joint[part.study, 40 * column : 40 * column + 40] = part.x
    fitted = np.zeros((150, 160))
    for column, part in enumerate(train.values()):
        fitted[part.study, 40 * column : 40 * column + 40] = part.x
    everything = LogisticRegression(C=0.1, max_iter=1000).fit(fitted, y).decision_function(joint)
    here = seen.all(1)
    ours = answers(stack, test, 2000)[:, 0]
    assert roc_auc_score(truth[here], ours[here]) > roc_auc_score(truth[here], everything[here]) + 0.02


def test_held_out_answers_are_those_of_scikit_learn_for_the_other_folds():
    rng = np.random.default_rng(0)
    x, y, subject = rng.normal(size=(60, 3)), (rng.random(60) < 0.5).astype(float), np.arange(60) // 2
    y[5] = np.nan
    x[:, 1] += np.nan_to_num(y)
    found = held_out_logits(x, y, subject, 0.1, seed=3)
    known = np.flatnonzero(np.isfinite(y))
    scaled = StandardScaler().fit_transform(x[known])
    for a, b in StratifiedGroupKFold(4, shuffle=True, random_state=3).split(scaled, y[known], subject[known]):
        oracle = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000).fit(scaled[a], y[known][a])
        np.testing.assert_allclose(found[known[b], 0], oracle.decision_function(scaled[b]), atol=1e-3)
    assert np.isnan(found[5]).all()


def test_a_study_that_lacks_a_part_gets_nothing_from_it_and_the_mean_of_a_part_is_nothing():
    parts, y = cohort(200, 2)
    stack = stacked_readouts(parts, y, np.arange(200))
    for name, readout in stack.readouts.items():
        mean = (parts[name].x @ readout.weight.T + readout.bias).mean()
        assert abs(mean) < 1e-9


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_classes_and_values_are_stacked_too(kind):
    rng = np.random.default_rng(4)
    x, noise = rng.normal(size=(300, 5)), rng.normal(size=(300, 30))
    value = x[:, 0] + 0.3 * rng.normal(size=300)
    y = np.digitize(value, [-0.5, 0.5]).astype(float) if kind == "multiclass" else value
    every = np.ones(300, bool)
    parts = {"ct": whole(x, every), "eeg": whole(noise, every)}
    stack = stacked_readouts(parts, y, np.arange(300), kind=kind, classes=3)
    out = answers(stack, parts, 300)
    if kind == "multiclass":
        assert (out.argmax(1) == y).mean() > 0.75
    else:
        assert np.corrcoef(out[:, 0], y)[0, 1] > 0.9
    assert stack.weights["eeg"] < 0.3 * stack.weights["ct"]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_the_slope_is_that_of_the_loss(kind):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3 if kind == "multiclass" else 2, 7).astype(float)
    shape = (7, 3) if kind == "multiclass" else (7, 1)
    share = rng.dirichlet(np.ones(7))
    error = check_grad(
        lambda z: _loss(z.reshape(shape), y, kind, share)[0],
        lambda z: _loss(z.reshape(shape), y, kind, share)[1].ravel(),
        rng.normal(size=shape).ravel(),
    )
    assert error < 1e-6


def test_weights_count_as_so_many_studies_of_the_same_subject():
    parts, y = cohort(200, 5)
    twice = {
        name: Part(np.vstack([p.x, p.x[again]]), np.r_[p.study, p.study[again] + 200], np.ones(len(p.study) + len(again), bool))
        for name, p in parts.items()
        for again in [np.flatnonzero(p.study < 60)]
    }  # fmt: skip
    subjects = np.arange(200)
    for strength in (0.01, 1.0):
        x = parts["eeg"].x
        target, weight = y[parts["eeg"].study], np.where(parts["eeg"].study < 60, 2.0, 1.0)
        weighed = _fit("binary", x, target, strength, 2, weight)
        repeated = _fit("binary", twice["eeg"].x, y[twice["eeg"].study % 200], strength, 2)
        np.testing.assert_allclose(weighed.weight, repeated.weight, atol=1e-4)
    weight = np.r_[np.full(60, 2.0), np.ones(140)]
    stack = stacked_readouts(parts, y, subjects, weights=weight)
    for name, readout in stack.readouts.items():
        said = parts[name].x @ readout.weight.T + readout.bias
        assert abs(np.average(said, axis=0, weights=weight[parts[name].study])) < 1e-6, "a weighed mean of nothing"
    same = stacked_readouts(parts, y, subjects, weights=np.full(200, 3.0))
    plain = stacked_readouts(parts, y, subjects)
    assert stack.weights != plain.weights and set(same.weights) == set(plain.weights)


def test_too_few_labels_are_a_reason():
    assert "fewer than 5" in stacked_readouts(
        {"ct": whole(np.ones((6, 2)), np.ones(6, bool))}, np.arange(6) % 2.0, np.arange(6)
    )
