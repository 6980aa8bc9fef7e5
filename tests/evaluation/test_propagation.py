"""Label spreading: its closed form, who is reached, how sure, and a check in which nobody's labels reach himself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from medssml.evaluation.propagation import certainty, propagation, spread
from medssml.evaluation.study_vectors import StudyVectors


def groups(n: int = 240, classes: int = 2, seed: int = 0, apart: float = 2.0) -> tuple[StudyVectors, np.ndarray]:
    """Vectors of length 1 around a direction of each class, and the classes."""
    generator = np.random.default_rng(seed)
    y = generator.integers(classes, size=n).astype(float)
    x = generator.normal(size=(n, 8)) * 0.6
    x[np.arange(n), y.astype(int)] += apart
    return StudyVectors(x / np.linalg.norm(x, axis=1, keepdims=True), np.ones((n, 1), bool)), y


@pytest.mark.parametrize("alpha", [0.5, 0.99])
def test_is_the_limit_that_the_paper_gives_in_closed_form(alpha: float) -> None:
    """F* = (1 - alpha) (1 - alpha S)^-1 Y with S = D^-1/2 W D^-1/2, rows made to sum to 1."""
    vectors, truth = groups(60, classes=3)
    y = np.where(np.arange(60) < 15, truth, np.nan)
    graph = vectors.neighbour_graph(6)
    w = graph.toarray()
    s = w / np.sqrt(w.sum(0)) / np.sqrt(w.sum(1))[:, None]
    start = np.zeros((60, 3))
    start[np.arange(15), truth[:15].astype(int)] = 1
    limit = np.linalg.solve(np.eye(60) - alpha * s, (1 - alpha) * start)
    np.testing.assert_allclose(spread(graph, y, 3, alpha), limit / limit.sum(1, keepdims=True), atol=2e-3)


def test_who_is_tied_to_no_label_stays_unknown_and_a_class_without_labels_gets_nothing() -> None:
    chain = csr_array(np.array([[0, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0.0]]))
    found = spread(chain, np.array([0, np.nan, 2, np.nan, np.nan]), 3)
    assert np.isnan(found[3:]).all()
    np.testing.assert_allclose(found[1], [0.5, 0, 0.5], atol=1e-3)
    assert found[0, 0] > 0.5 > found[0, 2] > 0


def test_certainty_is_one_less_the_entropy_in_shares_of_the_largest() -> None:
    given = np.array([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0], [np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(certainty(given), [1, 0, 1 - np.log(2) / np.log(3), np.nan], atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_few_labels_reach_the_rest_rightly_and_the_check_says_so(classes: int) -> None:
    vectors, truth = groups(classes=classes)
    y = truth.copy()
    y[10 * classes :] = np.nan
    kind = "binary" if classes == 2 else "multiclass"
    found = propagation(vectors, y, np.arange(len(y)), kind=kind, classes=classes)
    assert not isinstance(found, str)
    filled = np.isnan(y)
    right = found.probability.argmax(1) == truth
    assert right[filled].mean() > 0.95
    assert np.isfinite(found.held_out).all(1).tolist() == np.isfinite(y).tolist()
    check = found.check(y, kind)
    assert check["labels"] == 10 * classes and check["auroc"] > 0.95
    shares = [level["share"] for level in check["by_certainty"]]
    assert shares == sorted(shares, reverse=True) and shares[0] == 1.0
    assert check["by_certainty"][0]["right"] == pytest.approx(right[filled].mean(), abs=0.12)


def test_a_rare_class_is_found() -> None:
    vectors, truth = groups(600)
    kept = np.flatnonzero((truth == 0) | (np.arange(600) % 9 == 0))
    rare = StudyVectors(vectors.x[kept], vectors.has[kept])
    y = np.where(np.arange(len(kept)) < 120, truth[kept], np.nan)
    found = propagation(rare, y, np.arange(len(kept)))
    assert not isinstance(found, str)
    told = found.probability[np.isnan(y)].argmax(1)
    assert (truth[kept] == 1).mean() < 0.12 and told[truth[kept][np.isnan(y)] == 1].mean() > 0.8


def test_nobodys_label_reaches_himself_in_the_check() -> None:
    """Vectors that tell subjects apart and say nothing of the label: two studies each, held out together."""
    generator = np.random.default_rng(0)
    subjects = np.repeat(np.arange(120), 2)
    directions = generator.normal(size=(120, 30))
    x = directions[subjects] + 0.01 * generator.normal(size=(240, 30))
    vectors = StudyVectors(x / np.linalg.norm(x, axis=1, keepdims=True), np.ones((240, 1), bool))
    y = generator.integers(2, size=120).astype(float)[subjects]
    found = propagation(vectors, y, subjects, neighbours=5)
    assert not isinstance(found, str)
    told = found.probability.argmax(1) == y
    assert told.mean() > 0.99, "with its own label each is told"
    assert found.check(y, "binary")["auroc"] == pytest.approx(0.5, abs=0.15)


def test_too_few_labels_are_told() -> None:
    vectors, truth = groups(40)
    y = np.where(np.arange(40) < 6, truth, np.nan)
    assert "in a class" in str(propagation(vectors, y, np.arange(40)))
    y = np.r_[np.zeros(6), np.ones(6), np.full(28, np.nan)]
    assert propagation(vectors, y, np.zeros(40, int)) == "all labels are of one subject"
