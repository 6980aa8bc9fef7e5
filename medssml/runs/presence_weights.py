"""Weights of training studies under which what is absent says nothing of the label: absence may not stay as it was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssml.manifest.manifest import Manifest
from medssml.trainers.label_weights import LabelWeights

#: A study weighs at most this many times the mean, and at least its inverse.
MOST = 10.0


def presence_weights(table: Manifest, tasks: Sequence[str]) -> dict[str, list[float]]:
    """Task -> weight of the label of each training study, in order; see `independent_of_presence`. A regression has none."""
    train = table.split("train")
    kinds = {task: train.tasks[task].kind for task in tasks}
    return {
        task: independent_of_presence(train.present, train.targets[task]).tolist()
        for task in tasks
        if kinds[task] != "regression"
    }


def label_weights_by_presence(
    studies: Sequence[str],
    modalities: Sequence[str],
    present: NDArray[np.bool_],
    y: NDArray[np.float64],
    label: NDArray[np.float64] | None = None,
) -> LabelWeights:
    """What labels count where all of a study is seen (`independent_of_presence`), and where a part is (`by_modality`).

    Args:
        studies: (N) ids. modalities: (M) names. present: (N, M) bool. y: (N,) class, NaN where there is nothing to weigh by.
        label: (N,) weights of the labels themselves, by which both are multiplied; 1 each by default.
    """
    own = np.ones(len(y)) if label is None else label
    whole = pd.Series(own * independent_of_presence(present, y), list(studies))
    return LabelWeights(
        pd.Series(own, list(studies)), whole, pd.DataFrame(by_modality(present, y), list(studies), list(modalities))
    )


def by_modality(present: NDArray[np.bool_], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, M) factors P(r_m = 1) / P(r_m = 1 | y), with one study of each kind added to each share; 1 where unlabelled.

    Of studies that have a subset of the modalities, whatever else they have, the product over the subset makes each class as
    frequent as among all: unlike `independent_of_presence`, which weighs whole patterns, it asks nothing of what is absent,
    and stays within bounds where a pattern all but tells the label.

    Args:
        present: (N, M) bool. y: (N,) class of each study, NaN where unlabelled.
    """
    known = np.isfinite(y)
    factors = np.ones(present.shape)
    if not known.any():
        return factors
    share = (present[known].sum(0) + 1) / (known.sum() + 2)
    for value in np.unique(y[known]):
        rows = known & (y == value)
        factors[rows] = share / ((present[rows].sum(0) + 1) / (rows.sum() + 2))
    return factors


def independent_of_presence(present: NDArray[np.bool_], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) weights w = product over modalities m of P(r_m) / P(r_m | y), of mean 1 over the labelled studies; 1 where unlabelled.

    r_m says whether modality m is there. Where presence depends on the label and on nothing else that is not seen, the weighted
    studies show each pattern equally often in each class, so that the pattern carries no information on the label: inverse
    propensity weighting (Rosenbaum and Rubin 1983), with the label as what absence depends on. Modalities are taken as absent
    independently of each other, given the label, so that a pattern of few studies decides nothing; to each share one study
    of each kind is added.

    Args:
        present: (N, M) bool. y: (N,) class of each study, NaN where unlabelled.
    """
    known = np.isfinite(y)
    weight = np.ones(len(y))
    if not known.any():
        return weight
    there, classes = present[known], y[known].astype(int)
    share = (there.sum(0) + 1) / (len(there) + 2)
    log = np.zeros(int(known.sum()))
    for value in np.unique(classes):
        rows = classes == value
        of_class = (there[rows].sum(0) + 1) / (rows.sum() + 2)
        odds = np.where(there[rows], np.log(share / of_class), np.log((1 - share) / (1 - of_class)))
        log[rows] = odds.sum(1)
    found = np.clip(np.exp(log) / np.exp(log).mean(), 1 / MOST, MOST)
    weight[known] = found / found.mean()
    return weight
