"""Retrieval: from one modality of a study to another of the same study, among all studies that have both.

A candidate of the same subject, or one whose input is identical to the right one ("No acute findings."), is a hit and
not a mistake: nobody could tell it from the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from medssml.evaluation.encoded_studies import EncodedStudies
from medssml.evaluation.probes import unit
from medssml.model import MultimodalModel
from medssml.spaces import SharedSpace
from medssml.statistics.bootstrap import Array, intervals

#: Fewer pairs than this say nothing.
LEAST = 5
EXAMPLES = 20


class Space(NamedTuple):
    """One modality's studies as vectors. rows: (n,) positions of the studies, ascending. vectors: (n, D)."""

    rows: Array
    vectors: Array


def shared_space(model: MultimodalModel) -> SharedSpace | None:
    """The space in which the model's modalities were made to meet, which its pretraining kept; None without one."""
    return next((part for part in model.kept.values() if isinstance(part, SharedSpace)), None)


def spaces_of(studies: EncodedStudies, shared: SharedSpace) -> dict[str, Space]:
    """modality -> its studies in the space of the contrast, as it was trained; one that never met another is left out.

    Args:
        studies: encoded by the model of the space.
        shared: from `shared_space`.
    """
    import torch

    shared = shared.cpu().eval()
    out = {}
    for modality in shared.modalities:
        if modality in studies.encoded:
            with torch.inference_mode():
                vectors = shared(modality, studies.encoded[modality].pooled)
            rows = np.flatnonzero(studies.has[:, studies.column(modality)])
            out[modality] = Space(rows, vectors.float().numpy())
    return out


def ranks(similarity: Array, hits: Array) -> Array:
    """(n,) rank of the best hit among the misses of each query, from 1; a tie with a miss counts half.

    Args:
        similarity: (n, g) query to candidate.
        hits: (n, g) bool, candidates that are right; at least one for every query.
    """
    best = np.where(hits, similarity, -np.inf).max(axis=1, keepdims=True)
    misses = ~hits
    return 1 + ((similarity > best) & misses).sum(axis=1) + 0.5 * ((similarity == best) & misses).sum(axis=1)


def retrieve(
    studies: EncodedStudies,
    spaces: Mapping[str, Space],
    query: str,
    target: str,
    *,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Any] | None:
    """r@1, r@5 and median rank from `query` to `target`, with intervals over subjects and the chance of each.

    Args:
        studies: encoded.
        spaces: of `spaces_of`.
        query: modality to search with.
        target: modality to find.
        n: resamples of the queries; the candidates stay.
        seed: of the resamples.

    Returns:
        None where fewer than 5 studies have both.
    """
    found = _pairs(studies, spaces, query, target)
    if found is None:
        return None
    rows, similarity, hits = found
    rank, subject = ranks(similarity, hits), studies.subject[rows]
    columns = np.stack([rank <= 1, rank <= 5], axis=1).astype(float)
    recalls = intervals(lambda w: w @ columns / w.sum(axis=1, keepdims=True), subject, n=n, seed=seed)
    median = intervals(lambda w: weighted_median(rank, w), subject, n=n, seed=seed)[0]
    share = hits.mean(axis=1)
    return {
        "n": len(rows),
        "r@1": recalls[0].to_dict() | {"chance": float(share.mean())},
        "r@5": recalls[1].to_dict() | {"chance": float((1 - (1 - share) ** 5).mean())},
        "median_rank": median.to_dict() | {"chance": float((len(rows) + 1) / 2)},
    }


def weighted_median(values: Array, weights: Array) -> Array:
    """(R,) medians of values (N,) under weights (R, N)."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, order], axis=1)
    half = reached[:, -1:] / 2
    return values[order][np.minimum((reached < half).sum(axis=1), len(values) - 1)]


def retrieve_all(
    studies: EncodedStudies, spaces: Mapping[str, Space], *, n: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """ "xray->report" -> `retrieve`, for all ordered pairs that enough studies have."""
    found = {f"{a}->{b}": retrieve(studies, spaces, a, b, n=n, seed=seed) for a, b in permutations(spaces, 2)}
    return {name: result for name, result in found.items() if result is not None}


def examples(
    studies: EncodedStudies, spaces: Mapping[str, Space], *, count: int = EXAMPLES, top: int = 3, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """ "xray->report" -> some queries, drawn at random and not for being good: study, rank, the `top` candidates."""
    out: dict[str, list[dict[str, Any]]] = {}
    for query, target in permutations(spaces, 2):
        found = _pairs(studies, spaces, query, target)
        if found is None:
            continue
        rows, similarity, hits = found
        rank = ranks(similarity, hits)
        chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
        out[f"{query}->{target}"] = [
            {
                "query": studies.study_id[rows[i]],
                "rank": float(rank[i]),
                "top": [
                    {
                        "study_id": studies.study_id[rows[j]],
                        "similarity": float(similarity[i, j]),
                        "hit": bool(hits[i, j]),
                    }
                    for j in np.argsort(-similarity[i], kind="stable")[:top]
                ],
            }
            for i in chosen
        ]
    return out


def _pairs(
    studies: EncodedStudies, spaces: Mapping[str, Space], query: str, target: str
) -> tuple[Array, Array, Array] | None:
    """Studies with both, (n,); similarity (n, n); hits (n, n)."""
    rows = np.intersect1d(spaces[query].rows, spaces[target].rows)
    if len(rows) < LEAST:
        return None
    a, b = (unit(space.vectors[np.searchsorted(space.rows, rows)]) for space in (spaces[query], spaces[target]))
    subject = studies.subject[rows]
    hits = subject[:, None] == subject[None, :]
    if target in studies.content:
        content = studies.content[target][np.searchsorted(spaces[target].rows, rows)]
        hits |= content[:, None] == content[None, :]
    return rows, a @ b.T, hits
