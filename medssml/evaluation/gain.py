"""What pretraining is worth: a fine-tuned model beside one from scratch, on the same studies and the same few labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medssml.statistics.bootstrap import paired_bootstrap, subject_bootstrap
from medssml.statistics.metrics import auroc


def as_observed(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows of predictions.csv in which each labelled study is answered from all that it has, one per study and task.

    Args:
        predictions: columns `medssml.evaluation.tasks.PREDICTION_COLUMNS`; an empty subset is NaN or "".
    """
    subset = predictions["subset"].fillna("")
    size = subset.str.count(r"\+") + (subset != "")
    whole = predictions.assign(subset=subset, size=size).loc[predictions["y"].notna() & (size > 0)]
    whole = whole.sort_values("size", kind="stable").drop_duplicates(["study_id", "task"], keep="last")
    return whole.drop(columns="size").sort_index()


def gains(
    pretrained: pd.DataFrame,
    scratch: pd.DataFrame,
    truth: pd.DataFrame | None = None,
    *,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Per binary task the AUROC of both models, each study seen with all that it has, and their difference.

    Args:
        pretrained, scratch: predictions.csv of the two, of the same studies.
        truth: of `medssml.evaluation.bayes.read_truth`, where the studies are simulated.
        n: resamples of subjects, each of which applies to both. seed: of them.

    Returns:
        task -> {"n", "pretrained", "scratch", "gain": intervals, "bayes": the AUROC of the best possible answers}; a task
        with one class only is left out.

    Raises:
        ValueError: the two answer for different studies.
    """
    first, second = as_observed(pretrained), as_observed(scratch)
    found: dict[str, dict[str, Any]] = {}
    for task, part in first.groupby("task", sort=False):
        other = second.loc[second["task"] == task].set_index("study_id")["probability"]
        if set(other.index) != set(part["study_id"]):
            raise ValueError(f"the two models answer for different studies of {task}; evaluate both on one manifest")
        y, subjects = part["y"].to_numpy(float), part["subject"].to_numpy()
        if set(np.unique(y)) != {0.0, 1.0}:
            continue
        scores = part["probability"].to_numpy(float), other.loc[part["study_id"]].to_numpy(float)
        entry: dict[str, Any] = {"n": len(part)} | {
            name: subject_bootstrap(auroc, y, score, subjects, n=n, seed=seed).to_dict()
            for name, score in zip(("pretrained", "scratch"), scores, strict=True)
        }
        entry["gain"] = paired_bootstrap(auroc, y, *scores, subjects, n=n, seed=seed).to_dict()
        if truth is not None and f"bayes_{task}" in truth:
            best = truth.loc[part["study_id"], f"bayes_{task}"].to_numpy(float)
            entry["bayes"] = float(auroc(y, best, np.ones((1, len(y))))[0])
        found[str(task)] = entry
    return found
