"""VICReg's terms against the published equations, feature by feature and pair by pair."""

import numpy as np
import pytest
import torch

from medssml.losses import vicreg_terms


@pytest.fixture
def looks():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(7, 5, generator=g) * torch.tensor([0.1, 0.5, 1.0, 2.0, 0.0])
    return a, a + 0.3 * torch.randn(7, 5, generator=g)


def by_hand(a, b):
    """The terms in loops."""
    n, d = a.shape
    invariance = sum((a[i, j] - b[i, j]) ** 2 for i in range(n) for j in range(d)) / (n * d)
    variance = covariance = 0.0
    for z in (a, b):
        mean = [sum(z[i, j] for i in range(n)) / n for j in range(d)]
        for j in range(d):
            var = sum((z[i, j] - mean[j]) ** 2 for i in range(n)) / (n - 1)
            variance += max(0.0, 1 - (var + 1e-4) ** 0.5) / d / 2
            for k in range(d):
                if k != j:
                    cov = sum((z[i, j] - mean[j]) * (z[i, k] - mean[k]) for i in range(n)) / (n - 1)
                    covariance += cov**2 / d
    return invariance, variance, covariance


def test_the_terms_are_those_of_the_paper(looks):
    found = vicreg_terms(*looks)
    expected = by_hand(*(look.double().numpy() for look in looks))
    assert [float(term) for term in found[:3]] == pytest.approx(expected, rel=1e-5)


def test_equal_looks_of_independent_unit_features_cost_nothing():
    signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 1.5
    assert [float(term) for term in vicreg_terms(signs, signs)[:3]] == pytest.approx([0, 0, 0], abs=1e-6)


def test_features_that_have_collapsed_are_pulled_apart_with_a_finite_gradient():
    z = (torch.ones(4, 3) + torch.tensor([0.0, 1e-6, 0.0, -1e-6])[:, None]).requires_grad_()
    terms = vicreg_terms(z, z)
    assert float(terms.variance.detach()) == pytest.approx(0.99, abs=1e-3)
    assert float(terms.spread) < 0.02
    terms.variance.backward()
    assert bool(z.grad.isfinite().all()) and bool(z.grad.any())


def test_float32_under_autocast(looks):
    with torch.autocast("cpu", torch.bfloat16):
        low = vicreg_terms(*(look.bfloat16() for look in looks))
    assert {term.dtype for term in low} == {torch.float32}
    exact = vicreg_terms(*(look.bfloat16().float() for look in looks))
    np.testing.assert_allclose([float(t) for t in low], [float(t) for t in exact], rtol=1e-6)
