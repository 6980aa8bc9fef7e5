"""Multiplicative fusion against a loop over modalities, for every subset."""

import numpy as np
import torch

from medssml.batch import restrict
from medssml.fusion import MultiplicativeFusion
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, vectors_of


def test_it_is_a_product_over_what_is_there():
    fusion, encoded = stirred(MultiplicativeFusion(NAMES, 16)), encodings()
    found = fusion(encoded, EVERY).pooled.detach().numpy()
    for study in range(len(EVERY)):
        expected = np.ones(16)
        for m, x in vectors_of(encoded, EVERY, study).items():
            expected *= x @ numbers(fusion.factors.weight)[m] + numbers(fusion.factors.bias)[m]
        np.testing.assert_allclose(found[study], expected, rtol=1e-4, atol=1e-5)


def test_at_first_a_modality_that_says_nothing_is_as_if_absent():
    fusion, encoded = MultiplicativeFusion(NAMES, 16), encodings()
    with torch.no_grad():
        fusion.factors.weight[1] = 0
    without = EVERY & torch.tensor([True, False, True])
    fused = fusion(encoded, EVERY).pooled
    assert torch.equal(fused, fusion(restrict(encoded, EVERY, without, NAMES), without).pooled)
    assert torch.equal(fused[0], torch.ones(16)) and not torch.equal(fused[4], fused[0])
