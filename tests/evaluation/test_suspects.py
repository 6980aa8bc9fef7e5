"""Confident learning: planted label errors are found, right labels are not, and no subject vouches for itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medssml.batch import Encoded
from medssml.evaluation.encoded_studies import EncodedStudies
from medssml.evaluation.suspects import _confident, find_suspects, joined_embeddings


def drawn(n: int = 400, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings of well separated classes, their class, and subjects of two studies each."""
    generator = np.random.default_rng(seed)
    y = generator.integers(classes, size=n).astype(float)
    x = generator.normal(size=(n, 6))
    x[np.arange(n), y.astype(int)] += 4
    return x, y, np.arange(n) // 2


@pytest.mark.parametrize("classes", [2, 3])
def test_planted_errors_are_found(classes: int) -> None:
    x, y, subjects = drawn(classes=classes)
    generator = np.random.default_rng(1)
    wrong = generator.random(len(y)) < 0.2
    told = np.where(wrong, (y + generator.integers(1, classes, size=len(y))) % classes, y)
    told[:20] = np.nan
    wrong[:20] = False
    found = find_suspects(x, told, subjects, kind="binary" if classes == 2 else "multiclass", classes=classes)
    assert not isinstance(found, str)
    assert found.suspect[wrong].mean() > 0.9 and found.suspect[~wrong].mean() < 0.03
    assert found.wrong == pytest.approx(wrong.sum() / (len(y) - 20), abs=0.03)
    assert not found.suspect[:20].any() and np.isnan(found.of_label(told)[:20]).all()
    np.testing.assert_allclose(found.probability[20:].sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(found.taken_for.sum(0), 1, atol=1e-6)
    assert found.of_label(told)[found.suspect].max() < 0.5


def test_right_labels_are_left_alone() -> None:
    x, y, subjects = drawn()
    found = find_suspects(x, y, subjects)
    assert not isinstance(found, str) and found.suspect.mean() < 0.02 and found.wrong < 0.02


def test_no_subject_vouches_for_its_own_label() -> None:
    """What tells subjects and nothing else says nothing of a held-out subject."""
    generator = np.random.default_rng(0)
    subjects = np.arange(200) // 2
    of_subject = generator.integers(2, size=100).astype(float)
    x = np.eye(100)[subjects] * 10
    found = find_suspects(x, of_subject[subjects], subjects)
    assert not isinstance(found, str)
    assert np.abs(found.probability[:, 1] - 0.5).max() < 0.2


def test_the_joint_of_label_and_class_is_that_of_the_paper() -> None:
    """Counts above the mean confidence of a class, scaled to the labels that there are: by hand, study by study."""
    generator = np.random.default_rng(3)
    given = np.r_[np.zeros(30, int), np.ones(20, int)]
    p = np.clip(generator.normal(0.3 + 0.4 * given, 0.25), 0.02, 0.98)
    probability = np.c_[1 - p, p]
    threshold = [probability[given == k, k].mean() for k in (0, 1)]
    counts = np.zeros((2, 2))
    for label, row in zip(given, probability, strict=True):
        above = [k for k in (0, 1) if row[k] >= threshold[k] - 1e-6]
        if above:
            counts[label, max(above, key=lambda k: row[k])] += 1
    scaled = counts / counts.sum(1, keepdims=True) * np.bincount(given)[:, None]
    flagged, joint = _confident(given, probability)
    # cleanlab counts whole studies.
    np.testing.assert_array_equal(np.rint(scaled), joint * len(given))
    # As many of each label as the joint says are of the other class, the least probable ones, and none that is likelier right.
    for label in (0, 1):
        own = probability[given == label, label]
        told = np.sort(own[flagged[given == label]])
        assert (
            len(told) > 0 and (told < 0.5).all() and set(told) <= set(np.sort(own)[: round(scaled[label, 1 - label])])
        )


def test_a_class_that_no_label_has_is_none_to_be_mistaken_for() -> None:
    x, y, subjects = drawn(classes=2)
    found = find_suspects(x, np.where(y == 1, 3.0, y), subjects, kind="multiclass", classes=4)
    assert not isinstance(found, str)
    assert np.isnan(found.taken_for[1]).all() and not np.isnan(found.taken_for[3, 0]) and found.suspect.mean() < 0.02


def test_too_few_labels_are_said() -> None:
    x, y, subjects = drawn(20)
    y[y == 1] = np.nan
    assert find_suspects(x, y, subjects) == "fewer than 5 labelled training studies in a class"


def test_what_is_absent_stands_at_the_mean_beside_a_flag() -> None:
    present = torch.tensor([[True, False], [True, True], [False, True]])
    raw = {"ct": torch.tensor([[1.0, 5.0], [3.0, 5.0]]), "eeg": torch.tensor([[2.0], [4.0]])}
    nothing = {m: Encoded(v[:, None], torch.ones(len(v), 1, dtype=torch.bool), v) for m, v in raw.items()}
    studies = EncodedStudies(
        nothing, present, ("ct", "eeg"), ("a", "b", "c"), np.arange(3), {}, {}, raw
    )  # fmt: skip
    expected = [[1, 0, -1, 0, 0], [1, 1, 1, 0, -1], [0, 1, 0, 0, 1]]
    np.testing.assert_allclose(joined_embeddings(studies), expected)
