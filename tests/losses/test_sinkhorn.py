"""Sinkhorn against a loop in numpy as the paper's code writes it, and against POT."""

import numpy as np
import pytest
import torch

from medssml.losses import sinkhorn, transport


def swav_reference(scores: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    """As in SwAV's released code: prototypes x samples, divided by sums."""
    q = np.exp(scores.T / epsilon)
    q /= q.sum()
    prototypes, samples = q.shape
    for _ in range(iterations):
        q /= q.sum(1, keepdims=True)
        q /= prototypes
        q /= q.sum(0, keepdims=True)
        q /= samples
    return (q * samples).T


def scores_of(n: int, k: int) -> torch.Tensor:
    return torch.rand(n, k, generator=torch.Generator().manual_seed(n), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize(("n", "k"), [(12, 5), (4, 9), (1, 3)])
def test_codes_are_those_of_the_released_code(n, k):
    scores = scores_of(n, k)
    np.testing.assert_allclose(sinkhorn(scores).numpy(), swav_reference(scores.numpy(), 0.05, 3), rtol=1e-9)


def test_samples_are_normalised_exactly_and_prototypes_only_in_the_limit():
    scores = scores_of(40, 6)
    few, many = sinkhorn(scores), sinkhorn(scores, iterations=2000)
    for codes in (few, many):
        torch.testing.assert_close(codes.sum(1), torch.ones(40, dtype=torch.float64), rtol=1e-12, atol=0)
    assert float((few.sum(0) * 6 / 40 - 1).abs().max()) > 1e-3
    torch.testing.assert_close(many.sum(0), torch.full((6,), 40 / 6, dtype=torch.float64), rtol=1e-6, atol=0)


def test_small_epsilon_neither_overflows_nor_vanishes():
    codes = sinkhorn(scores_of(8, 4).float() * 10, epsilon=1e-3)  # exp(10,000) is infinite
    assert bool(codes.isfinite().all())
    torch.testing.assert_close(codes.sum(1), torch.ones(8))


def test_no_gradient_passes_and_no_samples_are_no_codes():
    scores = scores_of(5, 3).requires_grad_()
    assert not sinkhorn(scores).requires_grad
    assert sinkhorn(torch.zeros(0, 3)).shape == (0, 3)
    with pytest.raises(ValueError, match="epsilon is 0"):
        sinkhorn(scores, epsilon=0)


def test_the_plan_is_the_one_that_pot_finds():
    ot = pytest.importorskip("ot")
    cost = (scores_of(7, 5) + 1).numpy()
    rows, columns = np.arange(1.0, 8) / 28, np.arange(1.0, 6) / 15
    expected = ot.sinkhorn(rows, columns, cost, reg=0.1, numItermax=5000, stopThr=1e-12)
    found = transport(
        torch.from_numpy(cost), epsilon=0.1, iterations=5000,
        rows=torch.from_numpy(rows), columns=torch.from_numpy(columns),
    )  # fmt: skip
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_what_has_no_mass_gets_none():
    plan = transport(
        scores_of(4, 3), epsilon=0.1, iterations=500,
        rows=torch.tensor([0.5, 0.0, 0.25, 0.25]), columns=torch.tensor([0.5, 0.5, 0.0]),
    )  # fmt: skip
    assert bool(plan.isfinite().all()) and float(plan[1].sum()) == 0 and float(plan[:, 2].sum()) == 0
    torch.testing.assert_close(plan.sum(0), torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64), rtol=1e-5, atol=1e-6)
