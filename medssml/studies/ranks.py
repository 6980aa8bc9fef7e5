"""The order of methods: mean ranks over tasks, each resample of subjects applied to all methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from medssml.statistics.bootstrap import Array, Interval, intervals
from medssml.statistics.metrics import auroc

#: Method -> its answers of all seeds.
Answers = Mapping[str, pd.DataFrame]


def mean_ranks(answers: Answers, tasks: Sequence[str], bootstrap: int = 0) -> list[Interval]:
    """Each method's rank by AUROC, 1 = highest, ties shared, averaged over tasks.

    Args:
        answers: method -> study_id, subject, task, seed, y, probability, of one split; y is the same for all methods.
        tasks: that all methods answer.
        bootstrap: resamples of subjects; each applies to all methods and tasks. 0 for none.
    """
    scores = [[_by_seed(table, task) for table in answers.values()] for task in tasks]
    people = pd.concat([table[["study_id", "subject"]] for table in answers.values()]).drop_duplicates("study_id")
    studies = pd.Index(people["study_id"])
    places = [studies.get_indexer(shared(parts)) for parts in scores]
    y = [parts[0][1].loc[shared(parts)].to_numpy(float) for parts in scores]
    seen = [[scored.loc[shared(parts)].to_numpy(float).T for scored, _ in parts] for parts in scores]

    def ranked(weights: Array) -> Array:
        by_task = []
        for rows, truth, methods in zip(places, y, seen, strict=True):
            drawn = weights[:, rows]
            found = [np.mean([auroc(truth, one, drawn) for one in seeds], axis=0) for seeds in methods]
            by_task.append(rankdata(-np.stack(found, axis=1), axis=1))
        return np.asarray(np.mean(by_task, axis=0))

    if bootstrap == 0:
        estimates = ranked(np.ones((1, len(studies))))[0]
        return [Interval(float(value), None, None, len(studies)) for value in estimates]
    return intervals(ranked, people["subject"].to_numpy(), n=bootstrap)


def _by_seed(table: pd.DataFrame, task: str) -> tuple[pd.DataFrame, pd.Series]:
    """(study, seed) probabilities, and the label of each study."""
    part = table.loc[table["task"] == task]
    scores = part.pivot(index="study_id", columns="seed", values="probability").dropna()
    return scores, part.drop_duplicates("study_id").set_index("study_id")["y"]


def shared(parts: Sequence[tuple[pd.DataFrame, pd.Series]]) -> pd.Index:
    """The studies that all methods answer for."""
    index = parts[0][0].index
    for scores, _ in parts[1:]:
        index = index.intersection(scores.index)
    return index
