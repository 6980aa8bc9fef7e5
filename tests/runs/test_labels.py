"""The account of labels, what it lets a head learn, and the record that a head gets of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medssml.manifest.manifest import Manifest
from medssml.runs.labels import facts, label_account, learnable, task_records, warn_of_untrained

SPLIT = ["train"] * 4 + ["val"] * 2 + ["test"] * 2


def studies(**labels: list[object]) -> Manifest:
    subjects = ["a", "a", "b", "c", "d", "e", "f", "g"]
    table = {"subject_id": subjects, "study_id": range(8), "split": SPLIT, "report_text": ["x"] * 8}
    return Manifest.from_table(pd.DataFrame({**table, **{f"label_{k}": v for k, v in labels.items()}}), ".")


def test_labels_classes_and_subjects_of_each_split():
    table = studies(grade=["1", "1", "4", None, "2", "4", None, None])
    account = label_account(table, ["grade"])
    assert account["grade"]["classes"] == ["1", "2", "4"]
    train = account["grade"]["splits"]["train"]
    assert train == {"labels": 3, "subjects": 2, "per_class": {"1": 2, "2": 0, "4": 1}}
    assert account["grade"]["splits"]["test"] == {"labels": 0, "subjects": 0, "per_class": {"1": 0, "2": 0, "4": 0}}
    assert facts(account)["labels.grade.train"] == "3 of 2 subjects; 1: 2, 2: 0, 4: 1"


def test_a_class_that_only_later_splits_have_is_said(capsys):
    warn_of_untrained(label_account(studies(grade=["1", "1", "4", None, "2", "4", None, None]), ["grade"]))
    assert "grade: no training study is of class 2" in capsys.readouterr().err


def test_tasks_that_training_cannot_teach(capsys):
    table = studies(a=[0, 1, 0, 1, 0, 1, 0, 1], b=[None] * 4 + [0, 1, 0, 1], c=[0, 0, 0, 0, 0, 1, 0, 1], same=[1.5] * 8)
    account = label_account(table, ["a", "b", "c", "same"])
    assert learnable(account, every=True) == ["a", "same"]
    said = capsys.readouterr().err
    assert (
        "'b' is left out: no training study" in said and "'c' is left out: all 4 training labels are of class 0" in said
    )
    with pytest.raises(
        ValueError, match="task 'b': no training study has a label of it; .*fix: label training studies"
    ):
        learnable(account, every=False)
    with pytest.raises(ValueError, match="task 'c'"):
        learnable(label_account(table, ["c"]), every=True)


@pytest.mark.parametrize(
    ("values", "mean", "sd"),
    [
        ([60.0, 70.0, 60.0, 70.0], 65.0, 5.0),
        ([1e9 + 0.5, 1e9 + 1.5, 1e9 + 0.5, 1e9 + 1.5], 1e9 + 1, 0.5),
        ([1e-6, 3e-6, 1e-6, 3e-6], 2e-6, 1e-6),
        ([0.1, 0.1, 0.1, 0.1], 0.1, 1.0),
        ([1e9 + 0.5] * 4, 1e9 + 0.5, 1.0),
    ],
)
def test_the_record_of_a_regression_is_that_of_training_alone(values, mean, sd):
    record = task_records(studies(y=[*values, 7.5, 7.5, 9.5, 9.5]), ["y"])["y"]
    np.testing.assert_allclose([record.mean, record.sd], [mean, sd], rtol=1e-12)
    assert record.kind == "regression" and record.counts["train"] == {"labelled": 4}
