"""The best possible predictions of simulated studies, where their truth lies beside the manifest (truth.csv)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medssml.evaluation.encoded_studies import subset_name, subsets
from medssml.files import restored
from medssml.statistics.bootstrap import Array

#: How the columns of best possible probabilities begin.
_BEST = "bayes_"


def find_truth(manifest: str | Path) -> Path | None:
    """truth.csv of simulated studies beside a manifest, or None; a file of that name without best predictions is none."""
    path = Path(manifest).parent / "truth.csv"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        return path if _BEST in file.readline() else None


def read_truth(path: str | Path) -> pd.DataFrame:
    """truth.csv with the study id, as text, as its index.

    Raises:
        ValueError: no column study_id.
    """
    table = restored(
        pd.read_csv(path, dtype={"study_id": str, "subject_id": str}, keep_default_na=False, na_values=[""])
    )
    if "study_id" not in table:
        raise ValueError(f"{path} has no column study_id; fix: give the truth.csv of a simulated cohort")
    return table.set_index("study_id")


def known_truth(manifest: str | Path | None, truth: str | Path | None) -> pd.DataFrame | None:
    """What is known of simulated studies: the file `truth`, or the one beside the manifest, if it is there.

    Raises:
        OSError: no such file. ValueError: it is no such table.
    """
    path = find_truth(manifest) if truth is None and manifest is not None else truth
    return None if path is None else read_truth(path)


def bayes_column(task: str, subset: str) -> str:
    """Name of the column with the best possible probability of a task from a subset."""
    return f"{_BEST}{task}__{subset}"


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
