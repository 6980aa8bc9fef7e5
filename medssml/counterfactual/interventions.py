"""Interventions on what a study shows: a modality is hidden, or taken from another subject. No encoder runs again."""

from __future__ import annotations

import numpy as np
import torch

from medssml.counterfactual.values import Value
from medssml.evaluation.encoded_studies import EncodedStudies, bits, subsets
from medssml.evaluation.subsets import predict_within
from medssml.model import MultimodalModel
from medssml.statistics.bootstrap import Array

#: What stands in for a modality outside a coalition.
BASELINES = {
    "absent": "the model is told that the modality is absent",
    "marginal": "the modality of another subject, each modality of a subject of its own",
    "joint": "the modalities of one other subject, all of the same",
}
EMPTIES = {
    "mean": "the mean prediction over the reference studies",
    "model": "the model's answer to a study without any modality",
}


def draw_donors(subject: Array, pool: Array, rows: Array, draws: int, rng: np.random.Generator) -> Array:
    """Studies of other subjects, at random and with replacement.

    Args:
        subject: (N,) ids.
        pool: (N,) bool, studies that may be drawn.
        rows: (B,) studies to draw for.
        draws: D.
        rng: of the draws.

    Returns:
        (B, D) positions among the N; -1 where the pool holds no other subject.
    """
    candidates = np.flatnonzero(pool)
    order = candidates[np.argsort(subject[candidates], kind="stable")]
    ordered = subject[order]
    start = np.searchsorted(ordered, subject[rows], side="left")
    end = np.searchsorted(ordered, subject[rows], side="right")
    others = len(order) - (end - start)
    uniform = rng.random((len(rows), draws))
    if len(order) == 0:
        return np.full((len(rows), draws), -1)
    # The pool as a ring, from just behind the study's own subject to just before it.
    offset = np.minimum((uniform * others[:, None]).astype(int), np.maximum(others - 1, 0)[:, None])
    return np.where(others[:, None] > 0, order[(end[:, None] + offset) % len(order)], -1)


def draw_background(studies: EncodedStudies, baseline: str, draws: int, seed: int) -> Array:
    """(N, D, M) study that each absent modality is taken from; -1 where the study has no such modality or nobody else.

    For the joint baseline a donor has all that the study has. Where no such donor exists, each modality has its own.
    """
    rng = np.random.default_rng([seed, 2])
    has = studies.has
    donors = np.full((len(studies), draws, has.shape[1]), -1)
    for column in range(has.shape[1]):
        rows = np.flatnonzero(has[:, column])
        donors[rows, :, column] = draw_donors(studies.subject, has[:, column], rows, draws, rng)
    if baseline == "joint":
        full = bits(has)
        for pattern in np.unique(full):
            rows = np.flatnonzero(full == pattern)
            found = draw_donors(studies.subject, (full & pattern) == pattern, rows, draws, rng)
            usable = np.where(has[rows][:, None, :], found[:, :, None], -1)
            donors[rows] = np.where((found >= 0)[:, :, None], usable, donors[rows])
    return donors


def coalition_values(
    model: MultimodalModel,
    studies: EncodedStudies,
    task: str,
    value: Value,
    donors: Array,
    factual: Array,
    device: str | torch.device = "cpu",
) -> Array:
    """v(S) = mean over the donors of the value of the study with everything outside S taken from the donor: (N, 2^M).

    Args:
        model: in evaluation mode.
        studies: encoded.
        task: of the model.
        value: of these studies.
        donors: (N, D, M) of `draw_background`.
        factual: (N,) value of each study as it is, which is v(S) where S holds all that the study has.
        device: where fusion runs.

    Returns:
        NaN where nobody else has what would have to be taken.
    """
    has = studies.has
    out = np.repeat(factual[:, None], 1 << has.shape[1], axis=1)
    for mask in subsets(studies.modalities):
        kept = np.array([bool(mask >> j & 1) for j in range(has.shape[1])])
        swapped = has & ~kept
        touched = np.flatnonzero(swapped.any(axis=1))
        if len(touched):
            drawn = swapped_values(model, studies, task, value, donors, swapped, touched, device)
            out[touched, mask] = drawn.mean(axis=1)
    return out


def swapped_values(
    model: MultimodalModel,
    studies: EncodedStudies,
    task: str,
    value: Value,
    donors: Array,
    swapped: Array,
    rows: Array,
    device: str | torch.device = "cpu",
) -> Array:
    """(B, D) values of the studies `rows` (B,) with the modalities `swapped` (N, M) taken from the donors (N, D, M).

    NaN where there is no donor.
    """
    draws, width = donors.shape[1:]
    source = np.broadcast_to(rows[:, None, None], (len(rows), draws, width))
    source = np.where(swapped[rows][:, None, :], donors[rows], source).reshape(-1, width)
    possible = (source >= 0).all(axis=1)
    about = np.repeat(rows, draws)[possible]
    found = np.full(len(source), np.nan)
    if len(about):
        own = torch.from_numpy(about)
        taken = torch.from_numpy(source[possible])
        logits = predict_within(model, studies, studies.present[own], taken, own, device)[task]
        found[possible] = value(logits, about)
    return found.reshape(len(rows), draws)


def swapped_modalities(
    model: MultimodalModel,
    studies: EncodedStudies,
    task: str,
    value: Value,
    donors: Array,
    device: str | torch.device = "cpu",
) -> Array:
    """(N, M, D) values of each study with one modality taken from each of its donors (N, D, M).

    NaN where a study lacks the modality, or nobody else has it.
    """
    has = studies.has
    found = np.full((*has.shape, donors.shape[1]), np.nan)
    for column in range(has.shape[1]):
        swapped = np.zeros_like(has)
        swapped[:, column] = True
        rows = np.flatnonzero(has[:, column] & (donors[:, 0, column] >= 0))
        if len(rows):
            found[rows, column] = swapped_values(model, studies, task, value, donors, swapped, rows, device)
    return found
