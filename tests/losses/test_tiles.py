"""The contrast in tiles against the same contrast from a table of all pairs, and that no such table is made."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medssml.losses import Alike, count_paired, count_terms, info_nce, sigmoid_contrast, tiles
from medssml.losses.info_nce import cosine_logits, cross_entropy_terms


def rows(n, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def sides(n=23, m=17, groups=4):
    """Two ragged sides of which eight rows belong together, in groups that are no negatives; row 0 has none at all."""
    g = torch.Generator().manual_seed(5)
    partner = torch.full((n,), -1)
    partner[torch.randperm(n, generator=g)[:8]] = torch.randperm(m, generator=g)[:8]
    left, right = (torch.randint(groups, (k, 2), generator=g) for k in (n, m))
    return rows(n), rows(m, seed=1), partner, Alike(left, right)


def from_a_table(a, b, scale, partner, alike):
    """The reference: the whole table, and autograd."""
    match = partner[:, None] == torch.arange(len(b))
    negative = ~(match | alike.rows(slice(None)))
    logits = cosine_logits(a, b, scale)
    both = cross_entropy_terms(logits, match, negative), cross_entropy_terms(logits.T, match.T, negative.T)
    return [(x + y) / 2 for x, y in zip(*both, strict=True)]


@pytest.mark.parametrize("scale", [1.0, 14.0, 1e3])
@pytest.mark.parametrize("tile", [1, 40, 10**6])
@pytest.mark.parametrize("kept", [0, 100, 10**6])
def test_loss_counts_and_gradients_are_those_of_the_table(monkeypatch, tile, kept, scale):
    monkeypatch.setattr(tiles, "TILE", tile)
    monkeypatch.setattr(tiles, "ROWS", 1)
    monkeypatch.setattr(tiles, "KEPT", kept)
    a, b, partner, alike = sides()
    factor = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    found = info_nce(a, b, scale=factor, match=partner, exclude=alike)
    expected = from_a_table(a, b, factor, partner, alike)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got.double(), wanted.double())
    assert 0 < found.terms < 8.5
    inputs = (a, b, factor)
    for got, wanted in zip(
        torch.autograd.grad(3 * found.total, inputs), torch.autograd.grad(3 * expected[0], inputs), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [40.0, 40.4, 100.0])
@pytest.mark.parametrize("negatives", ["far", "near", "both"])
def test_float32_is_enough_for_negatives_as_far_away_as_they_can_be(scale, negatives):
    """Cosines of -1 and 1: logits that differ by twice the scale, in rows and columns that have nothing else."""
    towards = torch.eye(4, dtype=torch.float64)[0]
    signs = {"far": -torch.ones(6), "near": torch.ones(6), "both": torch.tensor([1.0, -1, 1, -1, -1, -1])}[negatives]
    a = (towards + 1e-3 * rows(6, 4)).detach()
    b = (signs[:, None] * towards + 1e-3 * rows(6, 4, 1)).detach()
    found = []
    for dtype in (torch.float32, torch.float64):
        sides = [side.to(dtype).requires_grad_() for side in (a, b)]
        factor = torch.tensor(scale, dtype=dtype)
        if dtype == torch.float32:
            total = info_nce(*sides, scale=factor).total
        else:
            total = from_a_table(
                *sides, factor, torch.arange(6), Alike(torch.arange(6)[:, None], torch.arange(6)[:, None] + 6)
            )[0]
        found.append([total.detach().double(), *(x.double() for x in torch.autograd.grad(total, sides))])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * max(1.0, float(wanted.abs().max())))


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_one_direction_may_count_more(monkeypatch, share):
    monkeypatch.setattr(tiles, "TILE", 40)
    monkeypatch.setattr(tiles, "ROWS", 1)
    a, b, partner, alike = sides()
    match = partner[:, None] == torch.arange(len(b))
    negative = ~(match | alike.rows(slice(None)))
    logits = cosine_logits(a, b, 7.0)
    there, back = cross_entropy_terms(logits, match, negative), cross_entropy_terms(logits.T, match.T, negative.T)
    found = info_nce(a, b, scale=7.0, match=partner, exclude=alike, share=share)
    for got, x, y in zip(found, there, back, strict=True):
        torch.testing.assert_close(got.double(), (share * x + (1 - share) * y).double())
    expected = torch.autograd.grad(share * there.total + (1 - share) * back.total, (a, b))
    for got, wanted in zip(torch.autograd.grad(found.total, (a, b)), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
    assert count_paired(partner, alike, share).item() == pytest.approx(found.terms.item())


def test_rows_without_partner_or_negative_are_counted_without_a_table(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 40)
    monkeypatch.setattr(tiles, "ROWS", 1)
    for groups in (1, 2, 4):
        _, _, partner, alike = sides(groups=groups)
        match = partner[:, None] == torch.arange(len(alike.b))
        assert count_paired(partner, alike) == count_terms(match, alike.rows(slice(None)))
    one_group = sides(groups=1)
    assert info_nce(*one_group[:2], match=one_group[2], exclude=one_group[3]).terms == 0


def test_the_gradient_can_be_asked_for_twice():
    a, b, partner, alike = sides()
    total = info_nce(a, b, match=partner, exclude=alike).total
    first, again = (torch.autograd.grad(total, a, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)


class Largest(TorchDispatchMode):
    """The most entries that any tensor had which was made meanwhile."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.entries = max(self.entries, leaf.numel())
        return out


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
def test_no_tensor_grows_with_the_square_of_the_batch(monkeypatch, kind):
    monkeypatch.setattr(tiles, "TILE", 2**12)
    monkeypatch.setattr(tiles, "ROWS", 1)
    monkeypatch.setattr(tiles, "KEPT", 0)
    n = 1500
    a, b = (rows(n, 2, seed).detach().float().requires_grad_() for seed in (0, 1))
    alike = Alike(torch.arange(n)[:, None], torch.arange(n)[:, None])
    one = torch.tensor(1.0, requires_grad=True)
    with Largest() as largest:
        if kind == "info_nce":
            found = info_nce(a, b, scale=one, match=torch.arange(n), exclude=alike)
        else:
            found = sigmoid_contrast(a, b, scale=one, bias=one, partner=torch.arange(n), exclude=alike)
        found.total.backward()
        count_paired(torch.arange(n), alike)
    assert largest.entries <= 2**12
    assert torch.isfinite(a.grad).all() and a.grad.any()


def test_not_a_number_is_seen():
    a, b, partner, alike = sides()
    with torch.no_grad():
        a[int((partner >= 0).nonzero()[0])] = torch.nan
    assert torch.isnan(info_nce(a, b, match=partner, exclude=alike).total)


def test_cosines_are_taken_in_float32_of_vectors_in_half_precision_and_in_double_of_double() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(3, 5), torch.randn(4, 5)
    half = cosine_logits(a.bfloat16(), b.bfloat16(), 100.0)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, cosine_logits(a.bfloat16().float(), b.bfloat16().float(), 100.0), rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(cosine_logits(a, b, 100.0), cosine_logits(a, b, 100.0).float(), rtol=0, atol=0)
    assert cosine_logits(a.double(), b.double(), 1.0).dtype == torch.float64


def test_terms_are_counted_in_rows_and_columns_that_have_a_match_and_a_negative():
    match = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]]).bool()
    assert count_terms(match) == 2  # two rows and two columns, each half
    assert count_terms(torch.ones(1, 1).bool()) == 0
    exclude = torch.tensor([[0, 1, 1], [0, 0, 0], [0, 0, 0], [1, 1, 1]]).bool()
    assert count_terms(match, exclude) == 1.5  # the first row has no negative left


@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_a_row_without_any_negative_has_no_term_and_no_gradient(scale):
    """One exponential serves the first scale; the second has each direction's own, measured from a highest logit of -inf."""
    a, b = rows(3), rows(3, seed=1)
    partner = torch.tensor([0, 1, -1])
    groups = torch.zeros(3, 1, dtype=torch.int64)
    found = info_nce(a, b, scale=torch.tensor(scale), match=partner, exclude=Alike(groups, groups))
    assert found.terms == 0 and found.total == 0
    for gradient in torch.autograd.grad(found.total, (a, b)):
        assert torch.equal(gradient, torch.zeros_like(gradient))
