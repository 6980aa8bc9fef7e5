"""Several runs on the same test studies: each metric, and the difference to the first run with a paired interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from medssml.evaluation.gain import as_observed
from medssml.statistics.bootstrap import paired_bootstrap, subject_bootstrap
from medssml.statistics.metrics import metrics_of, why_undefined

#: Kind of task -> the metric that runs are compared by.
METRIC = {"binary": "auroc", "multiclass": "auroc", "regression": "r2"}


def compare_runs(
    predictions: Mapping[str, pd.DataFrame], kinds: Mapping[str, str], *, n: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Every task that all runs answer, from all that each study has, on the labelled studies that all of them answer for.

    Args:
        predictions: run -> its predictions.csv, two runs at least; the first is the one that others are measured by.
        kinds: task -> binary, multiclass or regression.
        n: resamples of subjects, each of which applies to all runs. seed: of them.

    Returns:
        task -> {"kind", "metric", "n", "subjects", "positives", "runs": {run: interval}, "gains": {run: interval}}, the gain
        of a run being its metric minus that of the first; {"reason"} in place of the numbers where there can be none.

    Raises:
        ValueError: no task, or no test study, is common to the runs, or a label differs between them.
    """
    observed = {run: _observed(table) for run, table in predictions.items()}
    tasks = [t for t in kinds if all((table["task"] == t).any() for table in observed.values())]
    if not tasks:
        said = "; ".join(f"{run}: {', '.join(sorted(set(table['task']))) or 'none'}" for run, table in observed.items())
        raise ValueError(f"the runs answer no task in common ({said}); fix: compare runs of one task")
    found = {task: _compared(task, kinds[task], observed, n, seed) for task in tasks}
    if not any(entry["n"] for entry in found.values()):
        raise ValueError(
            "the runs share no labelled test study; fix: evaluate all of them on one manifest and split, with the same key "
            "of pseudonyms"
        )
    return found


def _observed(table: pd.DataFrame) -> pd.DataFrame:
    """One row per study and task (and class), from all that the study has."""
    if "class" not in table or table["class"].isna().all():
        return as_observed(table)
    # `as_observed` keeps one row per study and task: the classes go by as tasks of their own.
    named = table.assign(plain=table["task"], task=table["task"] + "\0" + table["class"].fillna("").astype(str))
    kept = as_observed(named)
    return kept.assign(task=kept["plain"]).drop(columns="plain")


def _compared(task: str, kind: str, observed: Mapping[str, pd.DataFrame], n: int, seed: int) -> dict[str, Any]:
    parts = {run: _scores(table.loc[table["task"] == task], kind) for run, table in observed.items()}
    first = next(iter(parts.values()))
    shared = first[0].index
    for scores, _ in parts.values():
        shared = shared.intersection(scores.index)
    labels = first[1].loc[shared]
    for run, (_, other) in parts.items():
        if not other.loc[shared, "y"].equals(labels["y"]):
            raise ValueError(
                f"{run} has other labels of {task} than the first run; fix: evaluate all runs on one manifest"
            )
    y, classes = _targets(labels["y"], kind, first[0])
    subjects = labels["subject"].to_numpy()
    positives = int((y == 1).sum()) if kind == "binary" else None
    entry: dict[str, Any] = {
        "kind": kind, "metric": METRIC[kind], "n": len(shared), "subjects": len(set(subjects)), "positives": positives,
    }  # fmt: skip
    reason = why_undefined(kind, y)
    if reason is not None:
        return {**entry, "reason": reason, "runs": {}, "gains": {}}
    metric = metrics_of(kind)[METRIC[kind]]
    of = {run: _array(scores.loc[shared], classes) for run, (scores, _) in parts.items()}
    baseline, *others = of
    entry["runs"] = {
        run: subject_bootstrap(metric, y, one, subjects, n=n, seed=seed).to_dict() for run, one in of.items()
    }
    entry["gains"] = {
        run: paired_bootstrap(metric, y, of[run], of[baseline], subjects, n=n, seed=seed).to_dict() for run in others
    }
    return entry


def _scores(part: pd.DataFrame, kind: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(N, 1) or (N, K) answers and (N) labels and subjects, both by study."""
    labels = part.drop_duplicates("study_id").set_index("study_id")[["y", "subject"]]
    if kind == "multiclass":
        return part.pivot(index="study_id", columns="class", values="probability").loc[labels.index], labels
    return part.set_index("study_id")[["probability"]], labels


def _targets(y: pd.Series, kind: str, scores: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """(N,) numbers, or places among the classes; the columns of the answers."""
    classes = [str(name) for name in scores.columns]
    if kind != "multiclass":
        return y.to_numpy(dtype=np.float64), classes
    place = {name: float(index) for index, name in enumerate(classes)}
    return np.array([place[str(value)] for value in y]), classes


def _array(scores: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """(N,) or (N, K), the classes in the same order for every run."""
    values = scores.set_axis([str(name) for name in scores.columns], axis=1)[classes].to_numpy(dtype=np.float64)
    return values[:, 0] if values.shape[1] == 1 else values
