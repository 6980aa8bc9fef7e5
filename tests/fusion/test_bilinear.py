"""Both bilinear operators against loops over every pair of modalities, for every subset."""

from itertools import combinations

import numpy as np
import pytest
import torch

from medssml.fusion import FactorisedBilinear, LowRankBilinear
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, vectors_of


def test_low_rank_bilinear_is_its_formula():
    fusion, encoded = stirred(LowRankBilinear(NAMES, 16, width=5)), encodings()
    found = fusion(encoded, EVERY).pooled.detach().numpy()
    weight, bias = numbers(fusion.factors.weight), numbers(fusion.factors.bias)
    for study in range(len(EVERY)):
        x = vectors_of(encoded, EVERY, study)
        expected = numbers(fusion.base) + sum(x.values(), np.zeros(16))
        for m, n in combinations(x, 2):
            a, b = (np.tanh(x[k] @ weight[k] + bias[k]) for k in (m, n))
            expected = expected + numbers(fusion.out.weight) @ (a * b)
        np.testing.assert_allclose(found[study], expected, rtol=1e-4, atol=1e-4)


def test_of_small_vectors_it_is_a_bilinear_form():
    """tanh(x) is x where x is small: h_k of the pair is x_1' W_k x_2 with W_k = U_1 diag(P_k) U_2'."""
    fusion, encoded = LowRankBilinear(NAMES, 16, width=5).double(), encodings()
    torch.nn.init.zeros_(fusion.factors.bias)
    small = {name: part._replace(pooled=1e-3 * part.pooled.double()) for name, part in encoded.items()}
    study = 6  # CT and X-ray
    x = vectors_of(small, EVERY, study)
    u, p = numbers(fusion.factors.weight), numbers(fusion.out.weight)
    form = [x[0] @ u[0] @ np.diag(row) @ u[1].T @ x[1] for row in p]
    found = fusion(small, EVERY).pooled[study].detach().numpy() - x[0] - x[1]
    np.testing.assert_allclose(found, form, rtol=1e-4, atol=1e-12)


def test_factorised_bilinear_is_its_formula():
    fusion, encoded = stirred(FactorisedBilinear(NAMES, 16, factors=3)), encodings()
    found = fusion(encoded, EVERY).pooled.detach().numpy()
    weight, bias = numbers(fusion.expand.weight), numbers(fusion.expand.bias)
    for study in range(len(EVERY)):
        x = vectors_of(encoded, EVERY, study)
        expected = numbers(fusion.base) + sum(x.values(), np.zeros(16))
        for m, n in combinations(x, 2):
            products = (x[m] @ weight[m] + bias[m]) * (x[n] @ weight[n] + bias[n])
            q = np.array([products[3 * i : 3 * i + 3].sum() for i in range(16)])
            z = np.sign(q) * np.sqrt(np.abs(q))
            expected = expected + numbers(fusion.out.weight) @ (z / np.linalg.norm(z))
        np.testing.assert_allclose(found[study], expected, rtol=1e-3, atol=1e-3)


def test_its_root_has_a_finite_slope_where_a_product_is_zero():
    fusion, encoded = FactorisedBilinear(NAMES, 16), encodings()
    torch.nn.init.zeros_(fusion.expand.bias)
    zero = {name: part._replace(pooled=torch.zeros_like(part.pooled)) for name, part in encoded.items()}
    fusion(zero, EVERY).pooled.square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in fusion.parameters())


def test_widths_and_dropout():
    assert LowRankBilinear(NAMES, 16).out.in_features == 32
    fusion = FactorisedBilinear(NAMES, 16)
    assert fusion.expand.weight.shape == (3, 16, 80) and fusion.dropout.p == 0
    assert FactorisedBilinear(NAMES, 16, dropout=0.1).dropout.p == 0.1
    with pytest.raises(ValueError, match="factors is 0"):
        FactorisedBilinear(NAMES, 16, factors=0)
