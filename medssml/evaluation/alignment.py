"""Vectors of a site, or of a subject, moved to those of the training studies: the shift of a scanner goes, unlabelled.

A study's aligned answer depends on the other studies of its group: what is made here is transductive, and is reported apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medssml.batch import Encoded
from medssml.evaluation.encoded_studies import EncodedStudies
from medssml.statistics.bootstrap import Array

#: What is aligned: the mean, or mean and covariance.
How = Literal["centre", "covariance"]
#: Studies of a group below which its mean says more of these patients than of their scanner.
LEAST = 10
#: Added to both covariances, as a share of the mean training variance: where nobody varies nothing is stretched.
RIDGE = 1e-6


class Moments(NamedTuple):
    """Mean (D,) and covariance (D, D), of 1/n, of n vectors. noise: the mean of |S - Sigma|^2 over such draws, as estimated."""

    mean: Array
    covariance: Array
    n: int
    noise: float


class Move(NamedTuple):
    """x -> (x - source) matrix + target, for vectors and tokens (..., D).

    source, target: (D,) means of the group and of training. matrix: (D, D). shrinkage: 0 to 1, None where no covariance was
    estimated. shift: distance of the means, in root mean square distances of a training study from the training mean. chance:
    the shift that so few studies have where there is none.
    """

    source: Array
    matrix: Array
    target: Array
    shrinkage: float | None
    shift: float
    chance: float

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) as moved, in the precision of x."""
        source, matrix, target = (torch.from_numpy(part) for part in (self.source, self.matrix, self.target))
        return ((x.double() - source) @ matrix + target).to(x.dtype)


@dataclass(frozen=True)
class Aligned:
    """Studies whose vectors were moved, and what was done to each group.

    Args:
        studies: in the same order; what was not moved is as it was.
        groups: group -> {"studies": n, "modalities": modality -> {"n", "moved"}}, with "shift", "shift_by_chance" and
            "shrinkage" where it was moved (see `Move`), and "reason" where it was not.
    """

    studies: EncodedStudies
    groups: dict[str, dict[str, Any]]


def moments(vectors: Array) -> Moments:
    """The moments of n vectors (n, D); noise is the mean of |x x' - S|^2 over n (Ledoit and Wolf 2004, lemma 3.4)."""
    x = np.asarray(vectors, dtype=np.float64)
    mean = x.mean(axis=0)
    x = x - mean
    sample = x.T @ x / len(x)
    noise = np.square(np.square(x).sum(axis=1)).mean() - np.square(sample).sum()
    return Moments(mean, sample, len(x), max(0.0, float(noise)) / len(x))


def shrinkage(own: Moments, target: Moments) -> float:
    """How far a covariance S is to be moved towards another one T, 0 to 1: the share of |S - T|^2 that chance explains.

    For a T that is known this is the share lambda that minimises E |(1 - lambda) S + lambda T - Sigma|^2, estimated as Ledoit
    and Wolf 2004 do for a multiple of the identity; the noise of a T that is estimated counts as well, so that two samples
    of the same distribution are taken for one.
    """
    apart = float(np.square(own.covariance - target.covariance).sum())
    return min(1.0, (own.noise + target.noise) / apart) if apart > 0 else 1.0


def move_to(training: Moments, vectors: Array, how: How) -> Move:
    """The map that gives a group the moments of training.

    `centre` shifts the mean. `covariance` is CORAL (Sun, Feng and Saenko 2016): (x - m_s) C_s^-1/2 C_t^1/2 + m_t, the group's
    covariance whitened and that of training put in its place. The paper adds the identity to both covariances, which the
    scale of the vectors decides the weight of; here C_s is shrunk towards that of training, as much as so few studies ask
    for: with few of them the map tends to `centre`, with many to the closed form.

    Args:
        training: moments of the training studies.
        vectors: (n, D) of the group.
        how: what is aligned.
    """
    own = moments(vectors)
    spread = float(np.trace(training.covariance))
    shift = float(np.linalg.norm(own.mean - training.mean) / np.sqrt(spread)) if spread > 0 else 0.0
    chance = float(np.sqrt(1 / own.n + 1 / training.n))
    identity = np.eye(len(own.mean))
    if how == "centre":
        return Move(own.mean, identity, training.mean, None, shift, chance)
    share = shrinkage(own, training)
    shrunk = (1 - share) * own.covariance + share * training.covariance
    ridge = RIDGE * spread / len(identity) * identity
    matrix = _power(shrunk + ridge, -0.5) @ _power(training.covariance + ridge, 0.5)
    return Move(own.mean, matrix, training.mean, share, shift, chance)


def _power(symmetric: Array, exponent: float) -> Array:
    """A positive definite matrix (D, D) to a power."""
    values, vectors = np.linalg.eigh(symmetric)
    # Rounding may leave an eigenvalue at or below 0.
    values = np.maximum(values, np.finfo(np.float64).eps * max(float(values[-1]), np.finfo(np.float64).tiny))
    return np.asarray((vectors * values**exponent) @ vectors.T)


def align_studies(
    training: EncodedStudies, studies: EncodedStudies, groups: Array, how: How, least: int = LEAST
) -> Aligned:
    """The studies with each group's vectors moved to those of training, modality by modality; no label is looked at.

    What fusion is given moves, pooled vectors and tokens by the map of the pooled ones, so that a mean of tokens stays their
    mean; what encoders give (`raw`) moves by a map of its own. A modality that a group lacks is not touched.

    Args:
        training: the studies that vectors are moved to.
        studies: those that are moved.
        groups: (N,) text, the group of each study; "" for none, which is left as it is.
        how: what is aligned.
        least: studies with a modality below which a group's, or all of training's, is left as it is.

    Raises:
        ValueError: not one group per study.
    """
    names = np.asarray(groups, dtype=object).astype(str)
    if names.shape != (len(studies),):
        raise ValueError(f"groups has shape {names.shape}, expected ({len(studies)},), one per study")
    account: dict[str, dict[str, Any]] = {
        name: {"studies": int((names == name).sum()), "modalities": {}} for name in sorted(set(names) - {""})
    }
    encoded, raw = dict(studies.encoded), dict(studies.raw)
    for modality, part in studies.encoded.items():
        has = names[studies.has[:, studies.column(modality)]]
        rows = {name: np.flatnonzero(has == name) for name in sorted(set(has) - {""})}
        reasons = {name: _why_not(training, modality, len(own), least) for name, own in rows.items()}
        chosen = {name: own for name, own in rows.items() if reasons[name] is None}
        for name, reason in reasons.items():
            account[name]["modalities"][modality] = {"n": len(rows[name]), "moved": reason is None}
            account[name]["modalities"][modality] |= {"reason": reason} if reason else {}
        if not chosen:
            continue
        moves = _moves(training.encoded[modality].pooled, part.pooled, chosen, how)
        encoded[modality] = Encoded(
            _moved(part.tokens, chosen, moves), part.mask, _moved(part.pooled, chosen, moves), part.layers
        )
        own_moves = _moves(training.raw[modality], studies.raw[modality], chosen, how)
        raw[modality] = _moved(studies.raw[modality], chosen, own_moves)
        for name, move in moves.items():
            account[name]["modalities"][modality] |= _said(move)
    return Aligned(replace(studies, encoded=encoded, raw=raw), account)


def _why_not(training: EncodedStudies, modality: str, count: int, least: int) -> str | None:
    """Why a modality of a group stays as it is, or None."""
    taught = len(training.encoded[modality].pooled) if modality in training.encoded else 0
    if taught < least:
        return f"{taught} training studies have it, {least} are needed"
    return f"{count} studies have it, {least} are needed" if count < least else None


def _moves(training: Tensor, vectors: Tensor, rows: Mapping[str, Array], how: How) -> dict[str, Move]:
    """Group -> its map; vectors (n, D), of which each group has some rows."""
    taught = moments(training.numpy())
    return {name: move_to(taught, vectors.numpy()[own], how) for name, own in rows.items()}


def _moved(values: Tensor, rows: Mapping[str, Array], moves: Mapping[str, Move]) -> Tensor:
    """A copy of values (n, ..., D) with the rows of each group moved; padding moves along, which nobody reads."""
    out = values.clone()
    for name, own in rows.items():
        out[own] = moves[name](values[own])
    return out


def _said(move: Move) -> dict[str, float]:
    shrunk = {} if move.shrinkage is None else {"shrinkage": round(move.shrinkage, 4)}
    return {"shift": round(move.shift, 4), "shift_by_chance": round(move.chance, 4), **shrunk}
