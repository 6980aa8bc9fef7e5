"""Canonical correlations against scikit-learn and against correlations that are known."""

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import CCA

from medssml.losses import canonical_correlations


@pytest.fixture
def sides():
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(300, 3))
    a = np.hstack([shared + draw.normal(size=(300, 3)), draw.normal(size=(300, 2))]) @ draw.normal(size=(5, 5)) + 4
    b = (shared + 0.5 * draw.normal(size=(300, 3))) @ draw.normal(size=(3, 4)) + 0.3 * draw.normal(size=(300, 4))
    return a, b


def test_they_are_those_of_scikit_learn(sides):
    a, b = sides
    found = canonical_correlations(*(torch.tensor(side) for side in sides))
    x, y = CCA(n_components=4, max_iter=5000, tol=1e-12).fit_transform(a, b)
    expected = [np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(4)]
    assert found.tolist() == pytest.approx(sorted(expected, reverse=True), abs=1e-5)


def test_the_sum_is_the_nuclear_norm_and_not_the_frobenius_norm(sides):
    """T with the symmetric roots of the paper, in numpy: its trace norm; the root of tr(T'T) is another number."""
    centred = [side - side.mean(0) for side in sides]

    def inverse_root(matrix):
        values, vectors = np.linalg.eigh(matrix)
        return vectors @ np.diag(values**-0.5) @ vectors.T

    inner = [inverse_root(part.T @ part / 299 + 0.1 * np.eye(part.shape[1])) for part in centred]
    t = inner[0] @ (centred[0].T @ centred[1] / 299) @ inner[1]
    total = float(canonical_correlations(*(torch.tensor(side) for side in sides), regulariser=0.1).sum())
    assert total == pytest.approx(np.linalg.norm(t, "nuc"), rel=1e-9)
    assert total > 1.3 * np.linalg.norm(t, "fro")


def test_what_is_turned_and_moved_correlates_fully_and_what_is_unlike_not_at_all():
    signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    turned = signs[:, :2] @ torch.tensor([[2.0, 1.0], [-1.0, 5.0]]) + 3
    torch.testing.assert_close(canonical_correlations(signs[:, :2], turned), torch.ones(2))
    torch.testing.assert_close(canonical_correlations(signs[:, :2], signs[:, 2:]), torch.zeros(1), rtol=0, atol=1e-6)


def test_the_gradient_is_finite_where_correlations_are_equal_and_is_that_of_differences():
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(9, 3, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, y: canonical_correlations(x, y, regulariser=1e-2).sum(), (a, b))
    signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], requires_grad=True)
    canonical_correlations(signs, signs, regulariser=1e-3).sum().backward()
    assert bool(signs.grad.isfinite().all())


def test_fewer_things_than_features_are_defined_and_it_is_float32_under_autocast():
    a, b = torch.randn(2, 6), torch.randn(2, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = canonical_correlations(a.bfloat16(), b.bfloat16(), regulariser=1e-3)
    assert found.dtype == torch.float32 and bool(found.isfinite().all()) and float(found[1:].max()) < 1e-3
