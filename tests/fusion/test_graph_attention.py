"""Graph attention against a loop over nodes and heads."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from medssml.fusion import GraphAttention
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, vectors_of


def test_it_is_its_formula_node_by_node_and_head_by_head():
    fusion, encoded = stirred(GraphAttention(NAMES, 16, depth=2, heads=2)), encodings()
    fused = fusion(encoded, EVERY)
    assert torch.equal(fused.mask, EVERY), "one node for each modality that is there"
    for study in range(len(EVERY)):
        x = {m: v + numbers(fusion.node)[m] for m, v in vectors_of(encoded, EVERY, study).items()}
        for layer in fusion.layers:
            values = {m: numbers(layer.linear.weight) @ v for m, v in x.items()}
            heard = {m: np.zeros(16) for m in x}
            for head in range(2):
                part = slice(8 * head, 8 * head + 8)
                for m in x:
                    scores = [
                        numbers(layer.listens)[head] @ values[m][part] + numbers(layer.speaks)[head] @ values[n][part]
                        for n in x
                    ]
                    weights = softmax([score if score > 0 else 0.2 * score for score in scores])
                    for weight, n in zip(weights, x, strict=True):
                        heard[m][part] += weight * values[n][part]
            x = {m: v + np.where(heard[m] > 0, heard[m], np.expm1(heard[m])) for m, v in x.items()}
        expected = np.mean(list(x.values()), axis=0) if x else numbers(fusion.nothing)
        np.testing.assert_allclose(fused.pooled[study].detach().numpy(), expected, rtol=1e-3, atol=1e-4)


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match="dim 16 is no multiple of heads 3"):
        GraphAttention(NAMES, 16, heads=3)
