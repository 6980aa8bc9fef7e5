"""Which studies to label next: uncertainty in closed form, the farthest study each time, and no patient takes all."""

from __future__ import annotations

import numpy as np
import pytest

from medssml.evaluation.selection import SPARE, diverse_uncertain, entropy, k_centre, margin, most_uncertain
from medssml.evaluation.study_vectors import StudyVectors


def around(angles: list[float]) -> StudyVectors:
    """Studies on the circle: similarity is the cosine of the angle between two, in degrees."""
    radians = np.deg2rad(np.array(angles))
    return StudyVectors(np.c_[np.cos(radians), np.sin(radians)], np.ones((len(angles), 1), bool))


def test_entropy_and_margin_in_closed_form() -> None:
    p = np.array([[0.5, 0.5, 0.0], [0.6, 0.3, 0.1], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    h = -(0.6 * np.log(0.6) + 0.3 * np.log(0.3) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(entropy(p), np.array([np.log(2), h, 0, np.log(3)]) / np.log(3), atol=1e-12)
    np.testing.assert_allclose(margin(p), [1, 0.7, 0, 1], atol=1e-12)


def test_the_most_uncertain_ones_and_of_a_subject_no_more_than_its_share() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.6, np.nan, 0.5])
    subjects = np.array(["a", "a", "a", "b", "c", "b"], dtype=object)
    among = np.array([0, 1, 2, 3, 4, 5])
    assert most_uncertain(score, among, subjects, 3).rows.tolist() == [0, 3, 4]
    assert most_uncertain(score, among, subjects, 4, per_subject=2).rows.tolist() == [0, 1, 3, 5]
    assert most_uncertain(score, among[2:], subjects, 9).rows.tolist() == [2, 3, 4]


def test_each_time_the_study_that_is_farthest_from_all_labelled_and_chosen_ones() -> None:
    vectors = around([0, 10, 90, 100, 170, 200])
    subjects = np.arange(6)
    found = k_centre(vectors, np.arange(1, 6), np.array([0]), subjects, 3)
    # 170 lies opposite to 0; then 90 is 80 from 170 and 90 from 0; then 200 is 30 from 170.
    assert found.rows.tolist() == [4, 2, 5]
    expected = [1 - np.cos(np.deg2rad(angle)) for angle in (170, 80, 30)]
    np.testing.assert_allclose(found.distance, expected, atol=1e-9)


def test_without_a_label_the_most_typical_study_comes_first() -> None:
    found = k_centre(around([0, 30, 40, 50, 180]), np.arange(5), np.array([], int), np.arange(5), 2)
    assert found.rows.tolist() == [2, 4] and np.isnan(found.distance[0])
    assert k_centre(around([0, 90]), np.array([], int), np.array([], int), np.arange(2), 2).rows.tolist() == []


def test_a_subject_that_has_its_share_is_passed_over() -> None:
    vectors = around([0, 180, 178, 60])
    subjects = np.array(["x", "a", "a", "b"], dtype=object)
    args = (vectors, np.array([1, 2, 3]), np.array([0]), subjects, 3)
    assert k_centre(*args).rows.tolist() == [1, 3]
    assert k_centre(*args, per_subject=2).rows.tolist() == [1, 3, 2]


def test_diverse_among_the_uncertain_is_neither_the_most_uncertain_nor_the_farthest_of_all() -> None:
    n = 3 * SPARE
    angles = [0.0, *np.linspace(20, 30, n - 2), 180.0]
    score = np.linspace(1, 0.5, n)
    score[0], score[-1] = np.nan, 0.0
    found = diverse_uncertain(around(angles), score, np.arange(1, n), np.array([0]), np.arange(n), 1)
    # Of the ten most uncertain ones, 1 to 10, the last lies farthest from the labelled study; the one at 180 is too sure.
    assert found.rows.tolist() == [SPARE]
    assert found.distance[0] == pytest.approx(1 - np.cos(np.deg2rad(angles[SPARE])))
