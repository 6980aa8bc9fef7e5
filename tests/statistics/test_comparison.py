"""Methods are compared on the same studies, seeds averaged, subjects kept whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medssml.statistics.bootstrap import subject_bootstrap
from medssml.statistics.comparison import compare, gains, subject_folds
from medssml.statistics.metrics import auroc


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


def test_a_gain_is_the_difference_of_the_aurocs_of_the_studies_that_both_answer_for() -> None:
    better, worse = _answers(0, shift=2.0), _answers(1, shift=0.2)
    found = gains({"worse": worse, "better": better.iloc[4:]}, "worse", n=300)
    shared = slice(4, None)
    expected = roc_auc_score(better.y[shared], better.probability[shared]) - roc_auc_score(
        worse.y[shared], worse.probability[shared]
    )
    gain = found["better"]["ct"]
    assert set(found) == {"better"} and gain["n"] == 56
    assert gain["estimate"] == pytest.approx(expected) and 0 < gain["ci_low"] < expected < gain["ci_high"]


def test_a_method_gains_nothing_over_itself_and_the_pairs_make_the_interval_narrow() -> None:
    same = gains({"a": _answers(0), "b": _answers(0)}, "a", n=100)["b"]["ct"]
    assert same["estimate"] == same["ci_low"] == same["ci_high"] == 0
    with pytest.raises(KeyError, match="no method 'c'"):
        gains({"a": _answers(0)}, "c")


def test_folds_keep_subjects_whole_and_hold_everyone_once() -> None:
    subjects = [str(i // 2) for i in range(48)]
    y = [float(i % 2) for i in range(48)]
    folds = subject_folds(subjects, y, 6)
    assert sorted(set(folds)) == list(range(6))
    assert all(len({f for f, s in zip(folds, subjects, strict=True) if s == one}) == 1 for one in set(subjects))
    with pytest.raises(ValueError, match="cannot be divided"):
        subject_folds(["a", "b"], [0, 1], 3)


def test_what_the_answers_lack_is_named() -> None:
    with pytest.raises(
        KeyError, match=r"the answers of 'model' lack the columns \['subset', 'seed'\]; expected \['study_id'"
    ):
        compare({"model": [_answers(0).drop(columns=["subset", "seed"])]})


def test_every_method_and_subset_is_compared_with_its_own_settings() -> None:
    table = _answers(0)
    both = pd.concat([table, table.assign(subset="eeg", probability=-table.probability)])
    found = compare({"a": [both], "b": [table]}, n=80, seed=3)
    assert list(found) == ["a", "b"] and list(found["a"]) == ["ct", "eeg"] and list(found["b"]) == ["ct"]
    area = roc_auc_score(table.y, table.probability)
    assert found["a"]["eeg"]["auroc"]["estimate"] == pytest.approx(1 - area)
    by_hand = subject_bootstrap(auroc, table.y, table.probability, table.subject, n=80, seed=3)
    ordered = table.sort_values("study_id")
    again = subject_bootstrap(auroc, ordered.y, ordered.probability, ordered.subject, n=80, seed=3).to_dict()
    assert by_hand.estimate == pytest.approx(area)
    assert {k: found["b"]["ct"]["auroc"][k] for k in again} == pytest.approx(again)
    assert found["b"]["ct"]["positives"] == 30 and type(found["b"]["ct"]["positives"]) is int
    assert found["b"]["ct"]["seeds"] == pytest.approx([area])
    default = subject_bootstrap(auroc, ordered.y, ordered.probability, ordered.subject).to_dict()
    assert compare({"m": [table]})["m"]["ct"]["auroc"] == pytest.approx(default)


def test_cohorts_are_ranked_apart_and_unlabelled_studies_left_out() -> None:
    table = _answers(0).assign(cohort=lambda t: t.subject % 2)
    shifted = table.assign(probability=table.probability + 100 * table.cohort)
    gaps = pd.concat([shifted, shifted.assign(y=np.nan, study_id=lambda t: "x" + t.study_id)])
    found = compare({"m": [gaps]}, n=20)["m"]["ct"]
    each = [roc_auc_score(part.y, part.probability) for _, part in table.groupby("cohort")]
    assert found["auroc"]["estimate"] == pytest.approx(np.mean(each)) and found["auroc"]["n"] == 60


def test_folds_follow_the_seed_and_spread_the_classes() -> None:
    subjects, y = [str(i) for i in range(40)], [float(i < 10) for i in range(40)]
    folds = subject_folds(subjects, y, 5)
    assert all(sum(y[i] for i in np.flatnonzero(folds == fold)) == 2 for fold in range(5))
    np.testing.assert_array_equal(folds, subject_folds(subjects, y, 5, seed=0))
    assert not np.array_equal(folds, subject_folds(subjects, y, 5, seed=1)) and folds.dtype == int
    assert sorted(set(subject_folds(["a", "b", "c"], [0, 0, 0], 3))) == [0, 1, 2], "as many subjects as folds will do"
    with pytest.raises(ValueError, match="2 subjects cannot be divided into 3 folds"):
        subject_folds(["a", "b", "a", "b"], [0, 1, 0, 1], 3)
