"""Shared and specific features: a loop over studies; what is absent is what the others share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import erf

from medssml.fusion import SharedSpecificFusion
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, vectors_of


def perceptron(x: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    hidden = x @ layers[0][0] + layers[0][1]
    return hidden * (1 + erf(hidden / np.sqrt(2))) / 2 @ layers[1][0] + layers[1][1]


@pytest.fixture
def fusion() -> SharedSpecificFusion:
    torch.manual_seed(0)
    made = stirred(SharedSpecificFusion(NAMES, 16, hidden=12))
    assert isinstance(made, SharedSpecificFusion)
    return made


def test_is_the_formula_study_by_study(fusion: SharedSpecificFusion) -> None:
    encoded = encodings()
    found = fusion(encoded, EVERY)
    shared_by = [(numbers(fusion.shared[i].weight).T, numbers(fusion.shared[i].bias)) for i in (0, 2)]
    for study in range(len(EVERY)):
        vectors = vectors_of(encoded, EVERY, study)
        s = {c: perceptron(x, shared_by) for c, x in vectors.items()}
        own = [(numbers(fusion.specific[i].weight), numbers(fusion.specific[i].bias)) for i in (0, 2)]
        r = {c: perceptron(x, [(w[c], b[c]) for w, b in own]) for c, x in vectors.items()}
        mean = np.mean(list(s.values()), axis=0) if s else numbers(fusion.nothing)
        both, bias = numbers(fusion.both.weight), numbers(fusion.both.bias)
        f = [both @ np.concatenate([s[c], r[c]]) + bias + s[c] if c in s else mean for c in range(3)]
        expected = numbers(fusion.join.weight) @ np.concatenate(f) + numbers(fusion.join.bias)
        np.testing.assert_allclose(found.pooled[study].detach().numpy(), expected, rtol=2e-4, atol=1e-4)
        for c in range(3):
            kept = [found.extra[name][study, c].detach().numpy() for name in ("shared", "specific")]
            wanted = [s[c], r[c]] if c in s else [np.zeros(16)] * 2
            np.testing.assert_allclose(kept, wanted, rtol=2e-4, atol=1e-4)


def test_what_is_absent_never_passes_the_shared_perceptron(fusion: SharedSpecificFusion) -> None:
    """The published code gives it an image of zeros, and its answer moves the others."""
    gradients: list[torch.Tensor] = []
    fusion.shared[2].bias.register_hook(gradients.append)
    present = torch.tensor([[True, False, False]])
    one = {"ct": encodings(torch.ones(1, 3, dtype=torch.bool))["ct"]}
    fusion(one, present).extra["shared"].sum().backward()
    torch.testing.assert_close(gradients[0], torch.ones(16))  # of one modality and not of three
