"""Exact Shapley values and interactions of a game with M players, given as its 2^M values.

The last axis of `values` is the coalition with bits s: bit j is set where player j takes part. All leading axes (studies,
seeds, resamples) are games of their own. A player that changes nothing gets 0, so a study that lacks a modality, for which
v(S) = v(S without it), needs no game of its own.

[1] Shapley, A value for n-person games, 1953. [2] Grabisch and Roubens, Int. J. Game Theory 28:547, 1999 (interactions).
[3] Wenderoth et al., InterSHAP, AAAI 2025 (the share of the interactions).
"""

from __future__ import annotations

from functools import lru_cache
from math import factorial

import numpy as np

from medssml.statistics.bootstrap import Array

TOLERANCE = 1e-6


def players_of(values: Array) -> int:
    """M of values (..., 2^M).

    Raises:
        ValueError: the length is no power of two.
    """
    size = values.shape[-1]
    players = size.bit_length() - 1
    if size != 1 << players:
        raise ValueError(f"the last axis has {size} coalitions, expected 2^M")
    return players


@lru_cache(maxsize=32)
def shapley_weights(players: int) -> Array:
    """(2^M, M): values @ weights is the Shapley value."""
    weights = np.zeros((1 << players, players))
    for j in range(players):
        for s in range(1 << players):
            if s >> j & 1:
                continue
            size = s.bit_count()
            share = factorial(size) * factorial(players - size - 1) / factorial(players)
            weights[s | 1 << j, j] += share
            weights[s, j] -= share
    return weights


@lru_cache(maxsize=32)
def interaction_weights(players: int) -> Array:
    """(2^M, M, M): values (..., 2^M) against it is the Shapley interaction index; the diagonal is 0."""
    weights = np.zeros((1 << players, players, players))
    for i in range(players):
        for j in range(players):
            if i == j:
                continue
            for s in range(1 << players):
                if s >> i & 1 or s >> j & 1:
                    continue
                size = s.bit_count()
                share = factorial(size) * factorial(players - size - 2) / factorial(players - 1)
                weights[s | 1 << i | 1 << j, i, j] += share
                weights[s | 1 << i, i, j] -= share
                weights[s | 1 << j, i, j] -= share
                weights[s, i, j] += share
    return weights


def shapley(values: Array) -> Array:
    """phi (..., M): each player's mean marginal contribution over all orders in which the players can arrive [1]."""
    return values @ shapley_weights(players_of(values))


def interactions(values: Array) -> Array:
    """I (..., M, M), symmetric: how much more a pair adds together than apart, averaged over coalitions [2].

    Positive where two modalities complement each other, negative where they repeat each other.
    """
    return np.tensordot(values, interaction_weights(players_of(values)), axes=1)


def split_interactions(values: Array) -> Array:
    """(..., M, M) that sums to v(all) - v(none): half of each interaction on either side, what remains on the diagonal."""
    pairs = interactions(values) / 2
    own = shapley(values) - pairs.sum(axis=-1)
    diagonal = np.eye(own.shape[-1])
    return pairs + own[..., None] * diagonal


def share(mean: Array) -> Array:
    """The off-diagonal part of |matrix| (..., M, M): 1 where all is interaction, 0 where all is additive; NaN if all 0."""
    size = np.abs(mean)
    total = size.sum(axis=(-2, -1))
    own = np.trace(size, axis1=-2, axis2=-1)
    return np.divide(total - own, total, out=np.full_like(total, np.nan, dtype=float), where=total > 1e-12)


def interaction_share(values: Array) -> dict[str, float]:
    """What part of the model's answers over N games, values (N, 2^M), is interaction, in both orders of averaging [3].

    abs_of_mean lets opposite interactions of different studies cancel; mean_of_abs does not. They answer different
    questions and can be 50 points apart, so both are given.
    """
    split = split_interactions(values)
    return {
        "mean_of_abs": float(share(np.abs(split).mean(axis=0))),
        "abs_of_mean": float(share(split.mean(axis=0))),
    }


def efficiency_gap(values: Array, phi: Array) -> float:
    """The largest |sum of phi - (v(all) - v(none))| over all games, relative to the largest |v| where that is above 1."""
    gap = np.abs(phi.sum(axis=-1) - (values[..., -1] - values[..., 0]))
    return float(np.max(gap, initial=0.0) / max(1.0, float(np.abs(values).max(initial=0.0))))


def checked_shapley(values: Array) -> Array:
    """`shapley`, after the check that it shares out v(all) - v(none) to 1e-6.

    Raises:
        ValueError: a value is not finite, or the shares do not add up.
    """
    if not np.isfinite(values).all():
        raise ValueError("a coalition has a value that is not finite; fix: look at the model's outputs for NaN")
    phi = shapley(values)
    gap = efficiency_gap(values, phi)
    if gap > TOLERANCE:
        raise ValueError(f"Shapley values do not add up: off by {gap:.2g}, allowed {TOLERANCE:.0e}")
    return phi
