"""Who is trained on and who is tested: always whole subjects, from a hash of the subject's id.

A hash does not care about the order of the rows or about who joins later: a subject keeps its split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medssml.randomness import hash64

SPLITS = ("train", "val", "test")
FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


def assign_splits(
    subject_ids: Sequence[str], fractions: Mapping[str, float] | None = None, seed: int = 0
) -> NDArray[np.object_]:
    """(n,) split of every study, the same for all studies of a subject.

    Args:
        subject_ids: (n,) subject of every study.
        fractions: split -> share of the subjects; shares sum to 1. Default: 0.7 train, 0.1 val, 0.2 test.
        seed: another seed, another assignment.

    Raises:
        ValueError: shares that are negative or do not sum to 1.
    """
    shares = dict(FRACTIONS if fractions is None else fractions)
    if any(share < 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"fractions of the splits must be >= 0 and sum to 1, got {shares}")
    edges = np.cumsum(list(shares.values()))
    names = np.array(list(shares), dtype=object)
    where = np.array([hash64(subject, seed) / 2.0**64 for subject in subject_ids], dtype=np.float64)
    return names[np.minimum(np.searchsorted(edges, where, side="right"), len(names) - 1)]


def splits_by_fold(
    subject_ids: Sequence[str], k: int, seed: int = 0, strata: Sequence[object] | None = None
) -> NDArray[np.int64]:
    """(n,) fold of every study, 0 to k - 1; a subject is in one fold, and folds differ by one subject at most.

    Args:
        subject_ids: (n,) subject of every study.
        k: number of folds, 2 or more.
        seed: another seed, another assignment.
        strata: (n,) something to spread evenly over the folds, such as the label; a subject counts with its first row.

    Raises:
        ValueError: fewer than 2 folds, or fewer subjects than folds.
    """
    first = {subject: row for row, subject in reversed(list(enumerate(subject_ids)))}
    if k < 2 or len(first) < k:
        raise ValueError(f"{k} folds of {len(first)} subjects; give 2 folds or more, and as many subjects as folds")
    stratum = {subject: "" if strata is None else str(strata[row]) for subject, row in first.items()}
    deal = sorted(first, key=lambda subject: (stratum[subject], hash64(subject, seed)))
    fold = {subject: position % k for position, subject in enumerate(deal)}
    return np.array([fold[subject] for subject in subject_ids], dtype=np.int64)


def fold_splits(folds: NDArray[np.int64], test: int) -> NDArray[np.object_]:
    """(n,) splits of one round of cross-validation: fold `test` is tested, the next one validates, the rest trains."""
    k = int(folds.max()) + 1
    splits = np.full(len(folds), "train", dtype=object)
    if k > 2:
        splits[folds == (test + 1) % k] = "val"
    splits[folds == test] = "test"
    return splits
