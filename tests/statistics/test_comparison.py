"""Methods are compared on the same studies, seeds averaged, subjects kept whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medssml.statistics.comparison import compare, subject_folds


def _answers(seed: int, shift: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = np.tile([0.0, 1.0], 30)
    return pd.DataFrame(
        {
            "study_id": [f"s{i}" for i in range(60)],
            "subject": np.arange(60) // 2,
            "subset": "ct",
            "probability": rng.normal(shift * y, 1.0),
            "y": y,
            "seed": seed,
        }
    )


def test_the_estimate_is_the_mean_over_seeds() -> None:
    tables = [_answers(0), _answers(1), _answers(2)]
    entry = compare({"model": tables}, n=200)["model"]["ct"]
    expected = [roc_auc_score(t.y, t.probability) for t in tables]
    assert entry["seeds"] == pytest.approx(expected)
    assert entry["auroc"]["estimate"] == pytest.approx(np.mean(expected))
    assert entry["auroc"]["ci_low"] < np.mean(expected) < entry["auroc"]["ci_high"]
    assert entry["auroc"]["n"] == 60


def test_tables_of_folds_are_one_table() -> None:
    whole = _answers(0)
    halves = [whole.iloc[:20], whole.iloc[20:]]
    assert compare({"m": halves}, n=100) == compare({"m": [whole]}, n=100)


def test_seeds_that_answer_for_different_studies_are_refused() -> None:
    with pytest.raises(ValueError, match="different studies"):
        compare({"model": [_answers(0), _answers(1).iloc[:50]]})


def test_unlabelled_studies_and_subsets_of_one_class_are_left_out() -> None:
    one = _answers(0).assign(y=lambda t: np.where(t.y > 0, 1.0, np.nan))
    assert compare({"model": [one]})["model"] == {}


def test_folds_keep_subjects_whole_and_hold_everyone_once() -> None:
    subjects = [str(i // 2) for i in range(48)]
    y = [float(i % 2) for i in range(48)]
    folds = subject_folds(subjects, y, 6)
    assert sorted(set(folds)) == list(range(6))
    assert all(len({f for f, s in zip(folds, subjects, strict=True) if s == one}) == 1 for one in set(subjects))
    with pytest.raises(ValueError, match="cannot be divided"):
        subject_folds(["a", "b"], [0, 1], 3)
