"""What pretraining is worth: paired, each study from all that it has, beside the best possible."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medssml.evaluation.gain import as_observed, gains


def answers(score: np.ndarray, y: np.ndarray, subset: str = "ct+eeg") -> pd.DataFrame:
    studies = [f"s{i}" for i in range(len(y))]
    return pd.DataFrame(
        {"study_id": studies, "subject": studies, "task": "t", "subset": subset, "probability": score, "y": y}
    )


@pytest.fixture
def y() -> np.ndarray:
    return np.tile([0.0, 1.0], 40)


def test_a_study_is_answered_once_from_all_that_it_has() -> None:
    rows = [("a", ""), ("a", "ct"), ("a", "ct+eeg"), ("b", np.nan), ("b", "eeg"), ("c", np.nan)]
    table = pd.DataFrame(rows, columns=["study_id", "subset"]).assign(task="t", y=1.0)
    table.loc[len(table)] = ["d", "ct", "t", np.nan]
    assert as_observed(table)[["study_id", "subset"]].to_numpy().tolist() == [["a", "ct+eeg"], ["b", "eeg"]]


def test_the_gain_is_the_difference_and_its_interval_is_paired(y: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    weak = y + 2.0 * rng.standard_normal(len(y))
    strong = weak + 1.5 * (y - 0.5)
    found = gains(answers(strong, y), answers(weak, y), n=300)["t"]
    assert found["n"] == 80 and "bayes" not in found
    assert found["gain"]["estimate"] == pytest.approx(found["pretrained"]["estimate"] - found["scratch"]["estimate"])
    assert found["gain"]["ci_low"] > 0
    alone = found["pretrained"]["ci_high"] - found["pretrained"]["ci_low"]
    assert found["gain"]["ci_high"] - found["gain"]["ci_low"] < alone, "the same resample applies to both"


def test_the_order_of_the_rows_does_not_matter(y: np.ndarray) -> None:
    score = np.random.default_rng(1).random(len(y))
    first, second = answers(score, y), answers(score, y).sample(frac=1.0, random_state=0)
    assert gains(first, second, n=50)["t"]["gain"]["estimate"] == 0.0


def test_the_best_possible_is_that_of_the_same_studies(y: np.ndarray) -> None:
    truth = pd.DataFrame({"bayes_t": np.r_[y, 0.0]}, index=[f"s{i}" for i in range(len(y) + 1)])
    score = np.random.default_rng(1).random(len(y))
    assert gains(answers(score, y), answers(score, y), truth, n=50)["t"]["bayes"] == 1.0


def test_other_studies_are_refused_and_one_class_is_left_out(y: np.ndarray) -> None:
    with pytest.raises(ValueError, match="different studies of t"):
        gains(answers(y, y), answers(y, y).head(10), n=50)
    assert gains(answers(y, 0 * y), answers(y, 0 * y), n=50) == {}
