"""Runs are compared on the studies that all of them answer for, subject by subject."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score, roc_auc_score

from medssml.evaluation.paired_runs import compare_runs


def answers(shift: float, n: int = 80, task: str = "ill", seed: int = 0) -> pd.DataFrame:
    """predictions.csv of one run: every study from ct alone and from ct+eeg, the latter being all that it has."""
    rng = np.random.default_rng(seed)
    y = np.tile([0.0, 1.0], n // 2)
    ids = [f"s{i}" for i in range(n)]
    whole = {"subject": [f"p{i // 2}" for i in range(n)], "study_id": ids, "task": task, "y": y}
    alone = pd.DataFrame({**whole, "subset": "ct", "probability": rng.random(n)})
    return pd.concat([alone, pd.DataFrame({**whole, "subset": "ct+eeg", "probability": rng.normal(shift * y)})])


def test_metrics_and_gains_are_those_of_the_shared_studies() -> None:
    first, second = answers(0.3), answers(2.0, seed=1)
    second = second[second["study_id"] != "s7"]
    entry = compare_runs({"a": first, "b": second}, {"ill": "binary"}, n=200)["ill"]
    assert entry["n"] == 79 and entry["positives"] == 39 and entry["subjects"] == 40
    seen = [t[(t["subset"] == "ct+eeg") & (t["study_id"] != "s7")] for t in (first, second)]
    a, b = (roc_auc_score(t["y"], t["probability"]) for t in seen)
    assert entry["runs"]["a"]["estimate"] == pytest.approx(a)
    gain = entry["gains"]["b"]
    assert set(entry["gains"]) == {"b"} and gain["estimate"] == pytest.approx(b - a)
    assert 0 < gain["ci_low"] < b - a < gain["ci_high"]


def test_numbers_and_several_classes() -> None:
    number = answers(2.0).assign(y=lambda t: np.tile(np.linspace(0, 1, 80), 2))
    entry = compare_runs({"a": number, "b": number}, {"ill": "regression"}, n=50)["ill"]
    whole = number[number["subset"] == "ct+eeg"]
    assert entry["runs"]["a"]["estimate"] == pytest.approx(r2_score(whole["y"], whole["probability"]))
    assert entry["gains"]["b"]["estimate"] == 0 and entry["positives"] is None
    classes = []
    for name in ("low", "mid", "high"):
        part = answers(1.0).assign(**{"class": name})
        truth = np.tile(np.array(["low", "mid", "high"])[np.arange(80) % 3], 2)
        classes.append(part.assign(y=truth, probability=np.where(truth == name, 0.8, 0.1)))
    table = pd.concat(classes)
    entry = compare_runs({"a": table, "b": table.iloc[::-1]}, {"ill": "multiclass"}, n=50)["ill"]
    assert entry["runs"]["a"]["estimate"] == entry["runs"]["b"]["estimate"] == 1


def test_runs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="no task in common .a: ill; b: old."):
        compare_runs({"a": answers(1.0), "b": answers(1.0, task="old")}, {"ill": "binary", "old": "binary"})
    others = answers(1.0).assign(study_id=lambda t: "x" + t["study_id"])
    with pytest.raises(ValueError, match="share no labelled test study; fix: evaluate all of them on one manifest"):
        compare_runs({"a": answers(1.0), "b": others}, {"ill": "binary"})
    with pytest.raises(ValueError, match="b has other labels of ill"):
        compare_runs({"a": answers(1.0), "b": answers(1.0).assign(y=lambda t: 1 - t["y"])}, {"ill": "binary"})
