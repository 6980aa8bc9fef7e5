"""MMD and CORAL against their sums, written out."""

import numpy as np
import pytest
import torch

from medssml.losses import coral, mmd


def sets(n: int = 7, m: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return (torch.randn(size, 3, generator=draw, dtype=torch.float64) for size in (n, m))  # type: ignore[return-value]


def test_mmd_is_the_mean_of_kernels():
    x, y = (part.numpy() for part in sets())
    both = np.concatenate([x, y])
    v = np.mean([np.sum((a - b) ** 2) for i, a in enumerate(both) for j, b in enumerate(both) if i != j])

    def kernel(a, b):
        return np.mean([np.exp(-np.sum((a - b) ** 2) / (s * v)) for s in (0.25, 0.5, 1, 2, 4)])

    parts = [np.mean([kernel(a, b) for a in p for b in q]) for p, q in ((x, x), (y, y), (x, y))]
    found = float(mmd(torch.from_numpy(x), torch.from_numpy(y)))
    assert found == pytest.approx(parts[0] + parts[1] - 2 * parts[2], rel=1e-9)


def test_coral_is_the_distance_of_covariances_and_no_place():
    x, y = sets()
    expected = np.sum((np.cov(x.numpy().T) - np.cov(y.numpy().T)) ** 2) / (4 * 9)
    assert float(coral(x, y)) == pytest.approx(expected, rel=1e-9)
    assert float(coral(x + 5, y)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("distance", [mmd, coral])
def test_equal_sets_are_no_distance_apart_in_any_order(distance):
    x, _ = sets()
    assert float(distance(x, x.flip(0))) == pytest.approx(0, abs=1e-12)
    assert float(distance(x, 3 * x)) > 1e-3


def test_mmd_sees_a_shift_and_its_gradient_is_finite_where_nothing_differs():
    x, _ = sets()
    assert float(mmd(x, x + 1)) > 0.1
    same = torch.ones(4, 3, requires_grad=True)
    mmd(same, same.detach()).backward()
    assert bool(same.grad.isfinite().all())
