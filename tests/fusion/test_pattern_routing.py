"""Routing by pattern: a loop over experts and what is absent; patterns find experts; learned vectors are learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import erf, softmax

from medssml.fusion import PatternRouting
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, vectors_of


def made(**options: int) -> PatternRouting:
    torch.manual_seed(0)
    fusion = stirred(PatternRouting(NAMES, 16, **options))  # type: ignore[arg-type]
    assert isinstance(fusion, PatternRouting)
    return fusion


def test_is_the_formula_study_by_study() -> None:
    fusion, encoded = made(experts=5, chosen=2), encodings()
    fused = fusion(encoded, EVERY)
    (w1, b1), (w2, b2) = ((numbers(fusion.experts[i].weight), numbers(fusion.experts[i].bias)) for i in (0, 2))
    for study in range(len(EVERY)):
        vectors, there = vectors_of(encoded, EVERY, study), EVERY[study].double().numpy()
        z = []
        for column in range(3):
            lacking = numbers(fusion.absent)[column] + sum(numbers(fusion.given)[n, column] for n in vectors)
            z.append(vectors.get(column, lacking))
        joined = np.concatenate(z)
        scores = (
            numbers(fusion.gate.weight) @ joined + numbers(fusion.gate.bias) + numbers(fusion.pattern.weight) @ there
        )
        best = np.argsort(-scores)[:2]
        gate = np.zeros(5)
        gate[best] = softmax(scores[best])
        pooled = numbers(fusion.base).copy()
        for expert in best:
            hidden = joined @ w1[expert] + b1[expert]
            pooled += gate[expert] * (hidden * (1 + erf(hidden / np.sqrt(2))) / 2 @ w2[expert] + b2[expert])
        np.testing.assert_allclose(fused.extra["gate"][study].detach().numpy(), gate, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(fused.pooled[study].detach().numpy(), pooled, rtol=2e-3, atol=2e-4)


def test_a_pattern_can_have_experts_of_its_own_whatever_its_studies_show() -> None:
    fusion = made(experts=4, chosen=1)
    with torch.no_grad():
        fusion.gate.weight.zero_()
        fusion.gate.bias.zero_()
        fusion.pattern.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]) * 5)
    for seed in (0, 1):
        gate = fusion(encodings(seed=seed), EVERY).extra["gate"]
        assert torch.equal(gate[4].argmax(), torch.tensor(0)) and torch.equal(gate[1].argmax(), torch.tensor(2))


def test_what_stands_in_for_the_absent_is_learned_given_what_is_there() -> None:
    fusion = made()
    present = torch.tensor([[True, False, True]])
    encoded = {name: part.select(torch.tensor([0])) for name, part in encodings(torch.ones(8, 3).bool()).items()}
    fusion({name: encoded[name] for name in ("ct", "report")}, present).pooled.sum().backward()
    assert fusion.absent.grad is not None and fusion.given.grad is not None
    assert (fusion.absent.grad.abs().sum(1) > 0).tolist() == [False, True, False]
    moved = fusion.given.grad.abs().sum(2) > 0  # (there, lacking)
    assert moved.tolist() == [[False, True, False], [False, False, False], [False, True, False]]


def test_wrong_arguments() -> None:
    for wrong in ({"chosen": 0}, {"experts": 2, "chosen": 3}):
        with pytest.raises(ValueError, match="experts are chosen; fix"):
            PatternRouting(NAMES, 16, **wrong)  # type: ignore[arg-type]
