"""Splits by a hash of the subject."""

from __future__ import annotations

import numpy as np
import pytest

from medssml.manifest.splits import assign_splits, fold_splits, splits_by_fold


def test_a_subject_keeps_its_split_when_the_table_grows() -> None:
    few = [f"s{i}" for i in range(50)]
    many = [f"s{i}" for i in range(500)][::-1]
    small, large = dict(zip(few, assign_splits(few), strict=True)), dict(zip(many, assign_splits(many), strict=True))
    assert all(large[subject] == split for subject, split in small.items())


def test_fractions_are_kept() -> None:
    splits = assign_splits([str(i) for i in range(20_000)], {"train": 0.5, "val": 0.2, "test": 0.3}, seed=3)
    shares = [float((splits == name).mean()) for name in ("train", "val", "test")]
    np.testing.assert_allclose(shares, [0.5, 0.2, 0.3], atol=0.015)
    with pytest.raises(ValueError, match="sum to 1"):
        assign_splits(["a"], {"train": 0.5})


def test_seven_of_ten_subjects_are_trained_on_and_two_are_tested() -> None:
    splits = assign_splits([str(i) for i in range(20_000)])
    shares = [float((splits == name).mean()) for name in ("train", "val", "test")]
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.01)


def test_the_fold_behind_the_tested_one_validates_and_the_first_comes_behind_the_last() -> None:
    folds = np.array([0, 1, 2, 3, 1])
    assert fold_splits(folds, 1).tolist() == ["train", "test", "val", "train", "test"]
    assert fold_splits(folds, 3).tolist() == ["val", "train", "train", "test", "train"]
    assert fold_splits(np.array([0, 1, 0]), 0).tolist() == ["test", "train", "test"], "of two folds none validates"


def test_folds_hold_whole_subjects_and_both_classes() -> None:
    subjects = [f"s{i // 2}" for i in range(48)]
    labels = [(i // 2) % 2 for i in range(48)]
    folds = splits_by_fold(subjects, 4, strata=labels)
    for fold in range(4):
        inside = np.flatnonzero(folds == fold)
        assert len(inside) == 12 and sum(labels[i] for i in inside) == 6
    assert all(folds[2 * i] == folds[2 * i + 1] for i in range(24))
    splits = fold_splits(folds, 1)
    assert [int((splits == name).sum()) for name in ("train", "val", "test")] == [24, 12, 12]
    with pytest.raises(ValueError, match="folds"):
        splits_by_fold(["a", "b"], 3)
