import math

import pytest
import torch

from medssml.losses import Alike, sigmoid_contrast, tiles


def naive(a, b, scale, bias, partner, alike):
    """The formula, one pair at a time, in Python floats."""
    total = 0.0
    for i, row in enumerate(a.tolist()):
        for j, column in enumerate(b.tolist()):
            match = partner[i] == j
            if alike(i, j) and not match:
                continue
            logit = scale * sum(x * y for x, y in zip(row, column, strict=True)) + bias
            total += math.log1p(math.exp(-logit if match else logit))
    return total


def rows(n, seed, d=5):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sides():
    """Four rows and six, of which three belong together; rows 0 of both and row 5 of b are alike."""
    partner = torch.tensor([2, -1, 0, 4])
    return (
        rows(4, 0),
        rows(6, 1),
        partner,
        Alike(torch.tensor([[7], [1], [2], [3]]), torch.tensor([[7], *[[9]] * 4, [7]])),
    )


@pytest.mark.parametrize("tile", [1, 13, 10**6])
def test_agrees_with_the_formula_whatever_the_tiles(monkeypatch, tile):
    monkeypatch.setattr(tiles, "TILE", tile)
    monkeypatch.setattr(tiles, "ROWS", 1)
    a, b, partner, alike = sides()
    scale, bias = torch.tensor(3.0, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)
    found = sigmoid_contrast(a, b, scale=scale, bias=bias, partner=partner, exclude=alike)
    expected = naive(a, b, 3.0, -2.0, partner.tolist(), lambda i, j: i == 0 and j in (0, 5))
    assert float(found.total) == pytest.approx(expected, rel=1e-12) and found.terms == 3


@pytest.mark.parametrize("tile", [1, 10**6])
def test_gradients_are_those_of_finite_differences(monkeypatch, tile):
    monkeypatch.setattr(tiles, "TILE", tile)
    monkeypatch.setattr(tiles, "ROWS", 1)
    a, b, partner, alike = sides()
    inputs = (a, b, torch.tensor(1.5, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64))
    for one in inputs:
        one.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b, t, c: sigmoid_contrast(a, b, scale=t, bias=c, partner=partner, exclude=alike).total, inputs
    )


def test_the_nearest_is_counted_and_large_logits_stay_finite():
    eye = torch.eye(3)
    one = torch.tensor(1.0)
    found = sigmoid_contrast(eye, eye[[0, 2, 1]], scale=one, bias=one, partner=torch.arange(3))
    assert found.correct == 1
    far = sigmoid_contrast(eye, -eye, scale=one * 1e4, bias=one, partner=torch.arange(3))
    assert float(far.total) == pytest.approx(3 * (1e4 - 1) + 6 * math.log1p(math.e), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_nothing_is_no_term(n, m):
    a, b = rows(n, 0).requires_grad_(), rows(m, 1).requires_grad_()
    one = torch.tensor(1.0)
    found = sigmoid_contrast(a, b, scale=one, bias=one, partner=torch.full((n,), -1))
    assert found.terms == 0 and found.total == 0
    found.total.backward()
    assert torch.isfinite(a.grad).all()
