"""Which unlabelled studies to label next: those that a model is unsure of, and those unlike all that are labelled.

Settles 2009, Active learning literature survey (entropy, margin). Sener and Savarese 2018, Active learning for convolutional
neural networks: a core-set approach (ICLR; greedy k-centre). Zhdanov 2019, Diverse mini-batch active learning (the most
uncertain ones first, then what is diverse among them).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from medssml.evaluation.propagation import certainty
from medssml.evaluation.study_vectors import StudyVectors
from medssml.statistics.bootstrap import Array

#: So many times the budget are the uncertain studies among which the diverse ones are looked for; 10 in the paper.
SPARE = 10


class Chosen(NamedTuple):
    """rows: (n,) places of studies in the order of their worth. distance: (n,) of each to the nearest labelled or earlier chosen
    study when it was chosen, 1 - similarity; NaN where nobody looked."""

    rows: Array
    distance: Array


def entropy(probability: Array) -> Array:
    """(N,) of probabilities (N, K), in shares of log K: 0 sure to 1 undecided."""
    return 1 - certainty(probability)


def margin(probability: Array) -> Array:
    """(N,) 1 - (the highest less the second highest) of probabilities (N, K): 0 sure to 1 undecided."""
    best = np.sort(probability, axis=1)
    return np.asarray(1 - (best[:, -1] - best[:, -2]))


def most_uncertain(score: Array, among: Array, subjects: Array, count: int, per_subject: int = 1) -> Chosen:
    """The studies of the highest scores, at most `per_subject` of a subject.

    Args:
        score: (N,); NaN for a study that nobody can judge, which comes last.
        among: (n,) places of the studies to choose from.
        subjects: (N,) ids.
        count: how many; fewer where there are no more.
    """
    order = among[np.argsort(-np.nan_to_num(score[among], nan=-np.inf), kind="stable")]
    rows = [row for row, _ in zip(_capped(order, subjects, per_subject), range(count), strict=False)]
    return Chosen(np.array(rows, dtype=int), np.full(len(rows), np.nan))


def k_centre(
    vectors: StudyVectors, among: Array, centres: Array, subjects: Array, count: int, per_subject: int = 1
) -> Chosen:
    """Again and again the study that is farthest from all labelled and chosen ones, at most `per_subject` of a subject.

    Args:
        vectors: of N studies.
        among: (n,) places of the studies to choose from.
        centres: (c,) those of labelled ones; where there is none, the study that is most like all others comes first.
        subjects: (N,) ids.
        count: how many; fewer where there are no more.
    """
    distance = np.full(len(among), np.inf)
    for start in range(0, len(centres), 256):
        found = 1 - vectors.similarity(among, centres[start : start + 256])
        distance = np.minimum(distance, found.min(axis=1))
    start_at = _most_typical(vectors, among) if len(centres) == 0 and len(among) else None
    free, taken = np.ones(len(among), dtype=bool), dict.fromkeys(subjects[among], 0)
    rows: list[int] = []
    told: list[float] = []
    while len(rows) < count and free.any():
        place = int(np.where(free, distance, -np.inf).argmax()) if rows or start_at is None else start_at
        rows.append(int(among[place]))
        told.append(float(distance[place]))
        subject = subjects[among[place]]
        taken[subject] += 1
        free[place] = False
        if taken[subject] >= per_subject:
            free &= subjects[among] != subject
        distance = np.minimum(distance, 1 - vectors.similarity(among, among[place : place + 1])[:, 0])
    return Chosen(np.array(rows, dtype=int), np.where(np.isinf(told), np.nan, told))


def _most_typical(vectors: StudyVectors, among: Array) -> int:
    """Place in `among` of the study that is most like all of them."""
    return int(np.concatenate([similarity.mean(axis=1) for _, similarity in vectors.passes(among)]).argmax())


def diverse_uncertain(
    vectors: StudyVectors, score: Array, among: Array, centres: Array, subjects: Array, count: int, per_subject: int = 1
) -> Chosen:
    """`k_centre` among the `SPARE` * `count` most uncertain studies; arguments as there."""
    first = most_uncertain(score, among, subjects, SPARE * count, per_subject)
    return k_centre(vectors, first.rows, centres, subjects, count, per_subject)


def _capped(order: Array, subjects: Array, per_subject: int) -> Iterator[int]:
    """The places in their order, of each subject the first `per_subject`."""
    taken: dict[object, int] = {}
    for row in order:
        taken[subjects[row]] = taken.get(subjects[row], 0) + 1
        if taken[subjects[row]] <= per_subject:
            yield int(row)
