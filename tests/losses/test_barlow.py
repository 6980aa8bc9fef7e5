"""The cross-correlation against numpy's, and its distance from the identity, entry by entry."""

import numpy as np
import pytest
import torch

from medssml.losses import cross_correlation, redundancy


@pytest.fixture
def sides():
    g = torch.Generator().manual_seed(0)
    a = 3 + torch.randn(9, 4, generator=g, dtype=torch.float64) * torch.tensor([0.5, 1.0, 2.0, 9.0])
    return a, a @ torch.randn(4, 4, generator=g, dtype=torch.float64) + torch.randn(9, 4, generator=g)


def by_hand(a, b, off_diagonal):
    """The published equation, entry by entry, of numpy's covariances and of deviations as batch normalisation has them."""
    d = a.shape[1]
    c = np.cov(a.T, b.T, bias=True)[:d, d:]
    c = c / np.sqrt(np.outer(a.var(0) + 1e-5, b.var(0) + 1e-5))
    return sum((1 - c[i, j]) ** 2 if i == j else off_diagonal * c[i, j] ** 2 for i in range(d) for j in range(d))


def test_the_loss_is_that_of_the_paper(sides):
    for weight in (0.0, 5e-3, 2.0):
        found = redundancy(cross_correlation(*sides), off_diagonal=weight)
        assert float(found) == pytest.approx(by_hand(*(side.numpy() for side in sides), weight), rel=1e-4)


def test_independent_features_that_agree_cost_nothing_whatever_their_scale():
    signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    matrix = cross_correlation(signs, 5 + 7 * signs)
    torch.testing.assert_close(matrix, torch.eye(3), rtol=0, atol=1e-4)
    # Turned: the same information, other features.
    assert float(redundancy(cross_correlation(signs, signs.roll(1, 1)), off_diagonal=1.0)) == pytest.approx(6, rel=1e-3)


def test_a_feature_that_does_not_vary_correlates_with_nothing_and_has_a_finite_gradient():
    a = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    a[:, 1] = 2.0
    a.requires_grad_()
    matrix = cross_correlation(a, a.detach())
    assert float(matrix.detach()[1].abs().max()) < 1e-3
    redundancy(matrix, off_diagonal=0.1).backward()
    assert bool(a.grad.isfinite().all())


def test_float32_under_autocast(sides):
    low = [side.bfloat16() for side in sides]
    with torch.autocast("cpu", torch.bfloat16):
        found = cross_correlation(*low)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, cross_correlation(*(side.float() for side in low)))
