"""The best possible predictions of simulated studies, where their truth lies beside the manifest (truth.csv)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medssml.evaluation.bootstrap import Array
from medssml.evaluation.studies import subset_name, subsets
from medssml.privacy import Pseudonyms


def find_truth(manifest: str | Path) -> Path | None:
    """truth.csv beside a manifest, or None."""
    path = Path(manifest).parent / "truth.csv"
    return path if path.is_file() else None


def read_truth(path: str | Path) -> pd.DataFrame:
    """truth.csv with the study id, as text, as its index.

    Raises:
        ValueError: no column study_id.
    """
    table = pd.read_csv(path, dtype={"study_id": str, "subject_id": str}, keep_default_na=False, na_values=[""])
    if "study_id" not in table:
        raise ValueError(f"{path} has no column study_id; fix: give the truth.csv of a simulated cohort")
    return table.set_index("study_id")


def coded_truth(path: str | Path, ids: Pseudonyms) -> pd.DataFrame:
    """The same under the names that the studies have in results.

    Raises:
        ValueError: no column study_id.
    """
    table = read_truth(path)
    return table.set_axis([ids.study(str(study)) for study in table.index], axis=0)


def bayes_column(task: str, subset: str) -> str:
    """Name of the column with the best possible probability of a task from a subset."""
    return f"bayes_{task}__{subset}"


def bayes_by_subset(
    truth: pd.DataFrame, study_id: Sequence[str], task: str, modalities: tuple[str, ...]
) -> dict[str, Array] | None:
    """Subset name -> (N,) best possible probability, NaN for a study that the truth does not know; None for a task
    that it does not know."""
    names = [subset_name(mask, modalities) for mask in subsets(modalities)]
    if any(bayes_column(task, name) not in truth for name in names):
        return None
    rows = truth.reindex(list(study_id))
    return {name: rows[bayes_column(task, name)].to_numpy(dtype=np.float64) for name in names}
