"""Shapley values against the sum over orders, the axioms, interactions by hand, and the check that they add up."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from medssml.counterfactual.shapley import (
    checked_shapley,
    efficiency_gap,
    interaction_share,
    interactions,
    shapley,
    split_interactions,
)


def by_orders(values: np.ndarray) -> np.ndarray:
    """The definition: the mean marginal contribution over all orders of arrival."""
    players = values.shape[0].bit_length() - 1
    orders = list(permutations(range(players)))
    phi = np.zeros(players)
    for order in orders:
        seen = 0
        for player in order:
            phi[player] += values[seen | 1 << player] - values[seen]
            seen |= 1 << player
    return phi / len(orders)


@pytest.mark.parametrize("players", [1, 2, 3, 4, 5])
def test_shapley_is_the_mean_over_orders_and_adds_up(players: int) -> None:
    values = np.random.default_rng(players).normal(size=(6, 1 << players))
    phi = checked_shapley(values)
    np.testing.assert_allclose(phi, [by_orders(v) for v in values], atol=1e-12)
    np.testing.assert_allclose(phi.sum(axis=1), values[:, -1] - values[:, 0], atol=1e-12)


def test_axioms() -> None:
    rng = np.random.default_rng(0)
    masks = np.arange(16)
    game = rng.normal(size=16)
    dummy = game[masks & 0b1011]
    assert shapley(dummy)[2] == pytest.approx(0)
    np.testing.assert_allclose(shapley(dummy)[[0, 1, 3]], shapley(dummy[[0, 1, 2, 3, 8, 9, 10, 11]]))
    size = np.array([bin(m).count("1") for m in masks]) ** 2.0
    np.testing.assert_allclose(shapley(size), 4)
    other = rng.normal(size=16)
    np.testing.assert_allclose(shapley(game + 2 * other), shapley(game) + 2 * shapley(other))


def test_interactions_are_symmetric_zero_for_additive_games_and_the_product_by_hand() -> None:
    additive = np.array([sum((j + 1) * (m >> j & 1) for j in range(3)) for m in range(8)], dtype=float)
    np.testing.assert_allclose(interactions(additive), 0, atol=1e-12)
    product = np.array([0.0, 0, 0, 1.0])
    np.testing.assert_allclose(interactions(product), [[0, 1], [1, 0]])
    values = np.random.default_rng(0).normal(size=(4, 16))
    np.testing.assert_allclose(interactions(values), interactions(values).swapaxes(-1, -2))
    np.testing.assert_allclose(split_interactions(values).sum(axis=(-1, -2)), values[:, -1] - values[:, 0])
    np.testing.assert_allclose(split_interactions(values).sum(axis=-1), shapley(values))


def test_the_two_shares_differ_where_interactions_cancel() -> None:
    opposite = np.array([[0.0, 0, 0, 1], [0.0, 1, 1, 1]])
    found = interaction_share(opposite)
    assert found["abs_of_mean"] == 0 and found["mean_of_abs"] > 0.4
    assert np.isnan(interaction_share(np.zeros((3, 4)))["mean_of_abs"])


def test_what_does_not_add_up_is_refused() -> None:
    assert efficiency_gap(np.array([[0.0, 1.0]]), np.array([[0.9]])) == pytest.approx(0.1)
    assert efficiency_gap(np.zeros((0, 2)), np.zeros((0, 1))) == 0.0, "of no game nothing is amiss"
    with pytest.raises(ValueError, match="not finite"):
        checked_shapley(np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match="2\\^M"):
        shapley(np.zeros((2, 3)))
