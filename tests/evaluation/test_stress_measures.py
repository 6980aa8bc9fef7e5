"""What obstacles cost, on answers of which every figure can be said by hand."""

import numpy as np
import pytest

from medssml.evaluation.stress_measures import Question, certainty, worst_subset


def test_certainty_of_two_and_of_three_classes() -> None:
    y = np.array([1.0, 0, 1, 0, 1])
    # Surest is 0.95 (right), then 0.1 (right), 0.8 (wrong); right are the first, second and fifth.
    found = certainty(y, np.array([0.95, 0.1, 0.45, 0.8, 0.6]))
    assert found["confidence"] == pytest.approx((0.95 + 0.9 + 0.55 + 0.8 + 0.6) / 5)
    assert (found["accuracy"], found["accuracy_of_surer_half"]) == (pytest.approx(3 / 5), pytest.approx(2 / 3))
    three = certainty(np.array([2.0, 0]), np.array([[0.1, 0.2, 0.7], [0.2, 0.5, 0.3]]))
    assert (three["confidence"], three["accuracy"]) == (pytest.approx(0.6), 0.5) and three[
        "accuracy_of_surer_half"
    ] == 1


def test_the_worst_subset_is_the_lowest_of_those_that_have_enough_studies() -> None:
    y, left = np.tile([0.0, 1], 35), np.repeat([1, 2, 3], [30, 30, 10])
    score = np.where(left == 1, y, np.where(left == 2, 0.5, 1 - y))  # from the third all are wrong, but they are ten
    question = Question("sick", "binary", y, np.arange(70), ("ct", "xray"))
    assert worst_subset(question, left, score) == {"subset": "xray", "n": 30, "auroc": 0.5}
    assert worst_subset(question, np.full(70, 3)[:10].repeat(7), score) is not None
    assert worst_subset(question, np.zeros(70, dtype=int), score) is None
