"""Self-distillation against the paper's pseudocode in loops."""

import math

import pytest
import torch

from medssml.losses import centred_and_sharpened, mean_over_pairs


def softmax(values, temperature):
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def by_hand(teacher, student, centre, teacher_temperature, temperature):
    """Algorithm 1 with several crops, one study at a time: lists of looks of rows of logits."""
    losses = []
    for row in range(len(teacher[0])):
        pairs = []
        for i, whole in enumerate(teacher):
            p = softmax([g - c for g, c in zip(whole[row], centre, strict=True)], teacher_temperature)
            for j, look in enumerate(student):
                if j != i:
                    q = softmax(look[row], temperature)
                    pairs.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
        losses.append(sum(pairs) / len(pairs))
    return losses


def test_is_the_mean_cross_entropy_over_pairs_of_different_looks():
    g = torch.Generator().manual_seed(0)
    teacher, student = torch.rand(2, 3, 5, generator=g), torch.rand(5, 3, 5, generator=g)
    centre = torch.rand(5, generator=g)
    targets = [centred_and_sharpened(one, centre, 0.04) for one in teacher]
    found = mean_over_pairs(targets, list(student), 0.1)
    assert found.tolist() == pytest.approx(
        by_hand(teacher.tolist(), student.tolist(), centre.tolist(), 0.04, 0.1), rel=1e-4
    )


def test_targets_have_no_gradient():
    logits = torch.rand(2, 3, requires_grad=True)
    assert not centred_and_sharpened(logits, torch.zeros(3), 0.1).requires_grad
