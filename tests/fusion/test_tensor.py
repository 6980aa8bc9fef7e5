"""Tensor fusion against a loop over all products, and low-rank tensor fusion against it at full rank."""

from itertools import product

import numpy as np
import pytest
import torch

from medssml.fusion import LowRankTensorFusion, TensorFusion
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, vectors_of


def test_it_is_a_linear_map_of_every_product_of_features():
    fusion, encoded = stirred(TensorFusion(NAMES, 16, width=2)), encodings()
    found = fusion(encoded, EVERY).pooled.detach().numpy()
    weight, bias = numbers(fusion.narrow.weight), numbers(fusion.narrow.bias)
    for study in range(len(EVERY)):
        factors = [np.array([1.0, 0.0, 0.0])] * 3  # absent: the products without it stay
        for m, x in vectors_of(encoded, EVERY, study).items():
            factors[m] = np.concatenate([[1.0], x @ weight[m] + bias[m]])
        z = [factors[0][i] * factors[1][j] * factors[2][k] for i, j, k in product(range(3), repeat=3)]
        expected = numbers(fusion.out.weight) @ np.array(z) + numbers(fusion.out.bias)
        np.testing.assert_allclose(found[study], expected, rtol=1e-4, atol=1e-4)


def test_a_tensor_that_would_be_too_large_is_refused():
    assert TensorFusion(NAMES, 16, width=8).out.in_features == 9**3
    with pytest.raises(ValueError, match=r"has 274,625 products, at most 131,072; fix: a smaller `width`"):
        TensorFusion(NAMES, 64, width=None)


def low_rank_of(tensor: TensorFusion) -> LowRankTensorFusion:
    """The same map as a sum of one rank-one tensor for each product: full rank."""
    size, dim = tensor.dim + 1, tensor.dim
    out = LowRankTensorFusion(tensor.modalities, dim, rank=size**3)
    with torch.no_grad():
        for rank, places in enumerate(product(range(size), repeat=3)):
            for m, factor in enumerate(out.factors):
                factor[rank] = 0
                factor[rank, places[m]] = tensor.out.weight[:, rank] if m == 0 else 1.0
        out.weights.fill_(1.0)
        out.bias.copy_(tensor.out.bias)
    return out


def test_at_full_rank_the_low_rank_one_equals_it():
    tensor, encoded = stirred(TensorFusion(NAMES, 3, width=None)), encodings(dim=3)
    torch.testing.assert_close(
        low_rank_of(tensor)(encoded, EVERY).pooled, tensor(encoded, EVERY).pooled, rtol=1e-4, atol=1e-4
    )
