"""Methods side by side on the same test studies: several seeds each, one interval over subjects and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medssml.statistics.bootstrap import Interval, Statistic, combine_seeds, intervals, over_seeds
from medssml.statistics.metrics import auroc, averaged

#: Columns of the answers of one method: who was asked, what was seen, what was said, what is true, which training seed.
COLUMNS = ("study_id", "subject", "subset", "probability", "y", "seed")


def compare(
    answers: Mapping[str, Iterable[pd.DataFrame]], *, n: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """AUROC of every method for every subset of modalities.

    Args:
        answers: method -> its tables, one or more per seed, each with the columns `COLUMNS`; where they also have
            `cohort`, AUROC is the mean over cohorts.
        n: resamples of subjects. seed: of the resamples.

    Returns:
        {method: {subset: {"auroc": {estimate, ci_low, ci_high, n}, "seeds": [AUROC of each]}}}; the estimate is the mean
        over seeds. Subsets for which the labelled studies have one class only are left out.

    Raises:
        KeyError: a table lacks a column. ValueError: the seeds of a method answer for different studies.
    """
    out: dict[str, dict[str, Any]] = {}
    for method, tables in answers.items():
        table = pd.concat([_checked(part, method) for part in tables], ignore_index=True)
        found = {str(subset): _auroc(part, method, n, seed) for subset, part in table.groupby("subset", sort=False)}
        out[method] = {subset: entry for subset, entry in found.items() if entry is not None}
    return out


def gains(
    answers: Mapping[str, pd.DataFrame], against: str, *, n: int = 1000, seed: int = 0
) -> dict[str, dict[str, dict[str, Any]]]:
    """What every other method adds to the AUROC of one, subset by subset, on the studies that both answer for.

    Args:
        answers: method -> its answers, with the columns `COLUMNS`.
        against: the method that the others are measured by.
        n: resamples of subjects, each of which applies to both; training seeds are drawn for each method. seed: of them.

    Returns:
        {method: {subset: {estimate, ci_low, ci_high, n}}}; a subset that either lacks, or with one class only, is left out.

    Raises:
        KeyError: no such method, or a table lacks a column.
    """
    if against not in answers:
        raise KeyError(f"no method {against!r} to measure by; there are {', '.join(answers)}")
    checked = {method: _checked(table, method) for method, table in answers.items()}
    reference = dict(list(checked[against].groupby("subset", sort=False)))
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for method, table in checked.items():
        if method == against:
            continue
        pairs = [
            (str(name), part, reference[name])
            for name, part in table.groupby("subset", sort=False)
            if name in reference
        ]
        found = {name: _gain(part, other, n, seed) for name, part, other in pairs}
        out[method] = {name: gain for name, gain in found.items() if gain is not None}
    return out


def _gain(table: pd.DataFrame, other: pd.DataFrame, n: int, seed: int) -> dict[str, Any] | None:
    """AUROC(table) - AUROC(other), each the mean over its seeds, on the studies that all of them answer for."""
    scores = [t.pivot(index="study_id", columns="seed", values="probability").dropna() for t in (table, other)]
    shared = scores[0].index.intersection(scores[1].index)
    studies = table.drop_duplicates("study_id").set_index("study_id").loc[shared]
    y = studies["y"].to_numpy(dtype=np.float64)
    if len(np.unique(y)) < 2:
        return None
    metric = averaged(auroc, studies["cohort"].to_numpy())

    def of(values: np.ndarray, place: int) -> Statistic:
        def each(weights: np.ndarray) -> np.ndarray:
            return np.stack([metric(y, one, weights) for one in values], axis=1)

        return over_seeds(each, len(values), seed=seed + place)

    first, second = (of(part.loc[shared].to_numpy(dtype=np.float64).T, place) for place, part in enumerate(scores))
    people = studies["subject"].to_numpy()
    return intervals(lambda weights: first(weights) - second(weights), people, n=n, seed=seed)[0].to_dict()


def _checked(table: pd.DataFrame, method: str) -> pd.DataFrame:
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise KeyError(f"the answers of {method!r} lack the columns {missing}; expected {list(COLUMNS)}")
    cohort = table["cohort"] if "cohort" in table else 0
    return table.assign(cohort=cohort).loc[table["y"].notna(), [*COLUMNS, "cohort"]]


def _auroc(table: pd.DataFrame, method: str, n: int, seed: int) -> dict[str, Any] | None:
    scores = table.pivot(index="study_id", columns="seed", values="probability")
    if scores.isna().any(axis=None):
        raise ValueError(f"the seeds of {method!r} answer for different studies; evaluate all of them on one manifest")
    studies = table.drop_duplicates("study_id").set_index("study_id").loc[scores.index]
    y = studies["y"].to_numpy(dtype=np.float64)
    if len(np.unique(y)) < 2:
        return None
    metric = averaged(auroc, studies["cohort"].to_numpy())
    values = scores.to_numpy(dtype=np.float64).T
    interval: Interval = combine_seeds(metric, y, values, studies["subject"].to_numpy(), n=n, seed=seed)
    each = [float(metric(y, one, np.ones((1, len(y))))[0]) for one in values]
    return {"auroc": interval.to_dict(), "positives": int(y.sum()), "seeds": each}


def subject_folds(subjects: Sequence[str], y: Sequence[float], folds: int, *, seed: int = 0) -> np.ndarray:
    """(N,) fold of every study: whole subjects, classes spread evenly.

    Raises:
        ValueError: fewer subjects than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if len(set(subjects)) < folds:
        raise ValueError(f"{len(set(subjects))} subjects cannot be divided into {folds} folds")
    out = np.zeros(len(subjects), dtype=int)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held) in enumerate(splitter.split(np.zeros(len(subjects)), y, groups=list(subjects))):
        out[held] = fold
    return out
