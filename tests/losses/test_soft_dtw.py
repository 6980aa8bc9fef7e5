"""Soft-DTW against the recursion, cell by cell, and what makes the divergence one."""

import numpy as np
import pytest
import torch

from medssml.losses import soft_dtw, soft_dtw_divergence


def by_cells(cost: np.ndarray, gamma: float) -> float:
    n, m = cost.shape
    r = np.full((n + 1, m + 1), np.inf)
    r[0, 0] = 0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            came = np.array([r[i - 1, j - 1], r[i - 1, j], r[i, j - 1]])
            least = came.min()
            r[i, j] = cost[i - 1, j - 1] + least - gamma * np.log(np.exp(-(came - least) / gamma).sum())
    return float(r[n, m])


def sequences(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("gamma", [0.01, 1.0, 10.0])
@pytest.mark.parametrize(("n", "m"), [(5, 7), (7, 3), (1, 4), (1, 1)])
def test_it_is_the_recursion(gamma, n, m):
    cost = sequences(3, n, m).square()
    expected = [by_cells(one.numpy(), gamma) for one in cost]
    np.testing.assert_allclose(soft_dtw(cost, gamma=gamma).numpy(), expected, rtol=1e-8)


def test_at_small_gamma_it_is_dynamic_time_warping():
    """A path that stays on one element as long as it likes costs nothing."""
    x = torch.tensor([[[0.0], [0.0], [1.0], [2.0], [2.0]]])
    y = torch.tensor([[[0.0], [1.0], [1.0], [1.0], [2.0]]])
    assert float(soft_dtw((x - y.transpose(1, 2)).square(), gamma=1e-3)) == pytest.approx(0, abs=0.02)


def test_padding_moves_nothing_and_has_no_gradient():
    x, y = sequences(2, 6, 3), sequences(2, 5, 3, seed=1)
    lengths = torch.tensor([4, 6]), torch.tensor([5, 2])
    x.requires_grad_()
    found = soft_dtw_divergence(x, y, gamma=0.5, lengths=lengths)
    for row in range(2):
        alone = soft_dtw_divergence(x[row : row + 1, : lengths[0][row]], y[row : row + 1, : lengths[1][row]], gamma=0.5)
        torch.testing.assert_close(found[row], alone[0])
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert bool(gradient.isfinite().all()) and not bool(gradient[0, 4:].any()) and bool(gradient[0, :4].any())


def test_of_a_sequence_with_itself_it_is_negative_and_the_divergence_nothing():
    x, y = sequences(4, 6, 3), sequences(4, 5, 3, seed=1)
    assert bool((soft_dtw((x[:, :, None] - x[:, None]).square().sum(-1)) < 0).all())
    torch.testing.assert_close(soft_dtw_divergence(x, x), torch.zeros(4, dtype=torch.float64), atol=1e-9, rtol=0)
    assert bool((soft_dtw_divergence(x, y) > 0).all())
    torch.testing.assert_close(soft_dtw_divergence(x, y), soft_dtw_divergence(y, x))


def test_its_gradient_is_that_of_small_steps():
    cost = sequences(2, 4, 3).square().requires_grad_()
    assert torch.autograd.gradcheck(lambda c: soft_dtw(c, gamma=0.7), cost)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="gamma is 0"):
        soft_dtw(torch.zeros(1, 2, 2), gamma=0)
    with pytest.raises(ValueError, match="0 and 2 elements"):
        soft_dtw(torch.zeros(1, 0, 2))
