"""Gated fusion against a loop over modalities and their gates, for every subset."""

import numpy as np
import torch
from scipy.special import expit

from medssml.fusion import GatedFusion
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, vectors_of


def test_each_modality_passes_the_gates_of_the_others_that_are_there():
    fusion, encoded = stirred(GatedFusion(NAMES, 16)), encodings()
    found = fusion(encoded, EVERY).pooled.detach().numpy()
    weight, bias = numbers(fusion.gates.weight), numbers(fusion.gates.bias)
    place = {pair: row for row, pair in enumerate((m, n) for m in range(3) for n in range(3) if n != m)}
    for study in range(len(EVERY)):
        x = vectors_of(encoded, EVERY, study)
        expected = numbers(fusion.base).copy()
        for m in x:
            passed = x[m].copy()
            for n in x:
                if n != m:
                    passed *= expit(x[n] @ weight[place[m, n]] + bias[place[m, n]])
            expected += passed
        np.testing.assert_allclose(found[study], expected, rtol=1e-4, atol=1e-5)


def test_a_modality_alone_passes_as_it_is_and_gates_begin_open():
    fusion, encoded = GatedFusion(NAMES, 16), encodings()
    fused = fusion(encoded, EVERY).pooled
    for study in (1, 2, 4):
        (alone,) = vectors_of(encoded, EVERY, study).values()
        np.testing.assert_allclose(fused[study].detach().numpy(), alone, atol=1e-6)
    assert torch.equal(fusion.gates.bias.detach(), torch.full((6, 16), 2.0))
    assert GatedFusion(("ct",), 16).gates is None
