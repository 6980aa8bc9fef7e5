"""Low-rank tensor fusion against a loop over ranks and modalities; its factors are trained and saved.

That it equals tensor fusion at full rank is in test_tensor.py.
"""

import numpy as np
import pytest
import torch

from medssml.fusion import LowRankTensorFusion
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, vectors_of


def test_it_is_a_sum_over_ranks_of_products_over_modalities():
    fusion, encoded = stirred(LowRankTensorFusion(NAMES, 16, rank=3)), encodings()
    found = fusion(encoded, EVERY).pooled.detach().numpy()
    for study in range(len(EVERY)):
        x = vectors_of(encoded, EVERY, study)
        expected = numbers(fusion.bias).copy()
        for r in range(3):
            term = np.full(16, numbers(fusion.weights)[r])
            for m in range(3):
                extended = np.concatenate([[1.0], x.get(m, np.zeros(16))])
                term *= extended @ numbers(fusion.factors[m])[r]
            expected += term
        np.testing.assert_allclose(found[study], expected, rtol=1e-4, atol=1e-4)


def test_its_factors_are_parameters_that_a_step_moves_and_a_checkpoint_holds():
    """Not so in two published toolkits, where they are a list: fusion by random features."""
    torch.manual_seed(0)
    fusion, encoded = LowRankTensorFusion(NAMES, 16), encodings()
    assert {"factors.0", "factors.1", "factors.2", "weights", "bias"} == set(fusion.state_dict())
    before = [factor.detach().clone() for factor in fusion.factors]
    optimiser = torch.optim.SGD(fusion.parameters(), lr=0.1)
    fusion(encoded, EVERY).pooled.square().sum().backward()
    optimiser.step()
    assert all(bool((old != new).all()) for old, new in zip(before, fusion.factors, strict=True))


def test_at_first_what_is_absent_does_not_shrink_what_is_there():
    torch.manual_seed(0)
    fusion, encoded = LowRankTensorFusion(NAMES, 16), encodings()
    for factor in fusion.factors:
        assert torch.equal(factor[:, 0].detach(), torch.ones(4, 16))
        assert 0.2 < float(factor[:, 1:].detach().std()) < 0.3  # Xavier: sqrt(2 / 33) = 0.246
    nothing = fusion(encoded, EVERY).pooled[0]
    torch.testing.assert_close(nothing, fusion.weights.sum().expand(16))
    with pytest.raises(ValueError, match="rank is 0"):
        LowRankTensorFusion(NAMES, 16, rank=0)
