"""Attention RNN against its equations in numpy, step by step, token by token."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from medssml.fusion import AttentionRNN
from tests.fusion.plain import linear
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, tokens_of


def lstm(cell, x, h, c):
    gates = numbers(cell.weight_ih) @ x + numbers(cell.bias_ih) + numbers(cell.weight_hh) @ h + numbers(cell.bias_hh)
    enter, forget, new, out = np.split(gates, 4)
    c = expit(forget) * c + expit(enter) * np.tanh(new)
    return expit(out) * np.tanh(c), c


def test_it_is_its_equations():
    fusion, encoded = stirred(AttentionRNN(NAMES, 16, steps=3)), encodings()
    fused = fusion(encoded, EVERY)
    for study in range(len(EVERY)):
        x = tokens_of(encoded, EVERY, study)
        s, memory = numbers(fusion.start), np.zeros(16)
        for step in range(3):
            content = {}
            for m in x:
                own = fusion.within[NAMES[m]]
                scores = [
                    float(linear(own.score, np.tanh(linear(own.state, s) + linear(own.token, token)))[0])
                    for token in x[m]
                ]
                content[m] = softmax(scores) @ x[m]
            looked = {
                m: np.tanh(
                    linear(fusion.state, s) + c @ numbers(fusion.content.weight)[m] + numbers(fusion.content.bias)[m]
                )
                for m, c in content.items()
            }
            beta = softmax([float(linear(fusion.score, value)[0]) for value in looked.values()]) if x else []
            g = linear(fusion.join, s)
            for share, (m, c) in zip(beta, content.items(), strict=True):
                g = g + share * (c @ numbers(fusion.value.weight)[m] + numbers(fusion.value.bias)[m])
            s, memory = lstm(fusion.cell, np.tanh(g), s, memory)
            np.testing.assert_allclose(fused.tokens[study, step].detach().numpy(), s, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(fused.pooled[study].detach().numpy(), s, rtol=1e-3, atol=1e-4)


def test_steps_and_one_modality():
    with pytest.raises(ValueError, match="steps is 0"):
        AttentionRNN(NAMES, 16, steps=0)
    assert AttentionRNN(("ct",), 16).score is None and AttentionRNN(NAMES, 16).steps == 3
