import math

import pytest
import torch

from medssml.losses import info_nce, same


def naive(a, b, scale, match=None, exclude=None):
    """The formula, one term at a time, in Python floats."""
    a = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in a.tolist()]
    b = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in b.tolist()]
    match = torch.eye(len(a), dtype=torch.bool) if match is None else match
    exclude = torch.zeros(len(a), len(b), dtype=torch.bool) if exclude is None else exclude

    def directed(x, y, match, exclude):
        total, terms = 0.0, 0
        for i in range(len(x)):
            s = [float(scale) * sum(p * q for p, q in zip(x[i], row, strict=True)) for row in y]
            own = [s[j] for j in range(len(y)) if match[i, j]]
            others = [s[j] for j in range(len(y)) if not match[i, j] and not exclude[i, j]]
            if own and others:
                total += -own[0] + math.log(math.exp(own[0]) + sum(math.exp(v) for v in others))
                terms += 1
        return total, terms

    forward, backward = directed(a, b, match, exclude), directed(b, a, match.T, exclude.T)
    return (forward[0] + backward[0]) / 2, (forward[1] + backward[1]) / 2


def rows(n, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agrees_with_the_formula():
    a, b = rows(6), rows(6, seed=1)
    total, terms = naive(a, b, 7.0)
    got = info_nce(a, b, scale=7.0)
    assert got.total.item() == pytest.approx(total, rel=1e-12)
    assert got.terms.item() == terms == 6


def test_agrees_with_the_formula_for_ragged_sides_and_exclusions():
    a, b = rows(4), rows(7, seed=1)
    match = torch.zeros(4, 7, dtype=torch.bool)
    match[0, 3] = match[2, 0] = match[3, 6] = True
    exclude = torch.rand(4, 7, generator=torch.Generator().manual_seed(2)) < 0.4
    total, terms = naive(a, b, 3.0, match, exclude)
    got = info_nce(a, b, scale=3.0, match=match, exclude=exclude)
    assert got.total.item() == pytest.approx(total, rel=1e-12)
    assert got.terms.item() == terms


def test_equal_logits_give_log_b():
    a = torch.ones(8, 3)
    got = info_nce(a, a, scale=10.0)
    assert (got.total / got.terms).item() == pytest.approx(math.log(8), rel=1e-6)


def test_two_orthogonal_pairs_have_a_closed_form():
    a = torch.eye(2)
    got = info_nce(a, a, scale=2.0)
    assert (got.total / got.terms).item() == pytest.approx(math.log(1 + math.exp(-2.0)), rel=1e-6)
    assert got.correct == 2


def test_is_symmetric_and_does_not_see_order_or_length():
    a, b = rows(5), rows(5, seed=1)
    order = torch.tensor([3, 0, 4, 1, 2])
    reference = info_nce(a, b).total
    torch.testing.assert_close(info_nce(b, a).total, reference)
    torch.testing.assert_close(info_nce(a[order], b[order]).total, reference)
    torch.testing.assert_close(info_nce(a * 9, b * 0.2).total, reference)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1e-2, 1e-4, 1e-6])
def test_tiny_temperatures_stay_finite(dtype, temperature):
    a = rows(6).to(dtype).requires_grad_()
    b = rows(6, seed=1).to(dtype)
    got = info_nce(a, b, scale=1 / temperature)
    got.total.backward()
    assert torch.isfinite(got.total)
    assert torch.isfinite(a.grad).all()
    assert got.total.dtype == torch.float32


def test_half_precision_under_autocast_is_computed_in_float32():
    a, b = rows(16, 32).float(), rows(16, 32, seed=1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = info_nce(a, b, scale=100.0)
    torch.testing.assert_close(got.total, info_nce(a, b, scale=100.0).total)


def test_an_excluded_pair_has_no_gradient():
    a, b = rows(3).requires_grad_(), rows(3, seed=1).requires_grad_()
    exclude = torch.zeros(3, 3, dtype=torch.bool)
    exclude[0, 1] = exclude[1, 0] = True
    exclude[2] = exclude[:, 2] = True
    got = info_nce(a, b, exclude=exclude)
    assert got.terms == 0
    assert got.total == 0
    got.total.backward()
    assert a.grad.abs().sum() == 0


def test_a_row_that_alone_has_no_negative_is_no_term():
    a, b = rows(3), rows(3, seed=1)
    exclude = torch.zeros(3, 3, dtype=torch.bool)
    exclude[1] = True
    total, terms = naive(a, b, 4.0, None, exclude)
    got = info_nce(a, b, scale=4.0, exclude=exclude)
    assert got.terms.item() == terms == 2.5 and got.total.item() == pytest.approx(total)


def test_the_share_that_is_right_counts_the_nearest_and_no_tie():
    a, b = torch.eye(3), torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]])
    got = info_nce(a, b)
    assert got.correct == 1
    assert info_nce(torch.ones(2, 3), torch.ones(2, 3)).correct == 0, "two equal candidates: not found"


def test_the_temperature_is_that_of_the_paper_and_entries_are_compared_each_with_each():
    a, b = rows(4), rows(4, seed=1)
    torch.testing.assert_close(info_nce(a, b).total, info_nce(a, b, scale=1 / 0.07).total)
    assert same(torch.tensor([1, 2]), torch.tensor([2, 2, 1])).tolist() == [[False, False, True], [True, True, False]]


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_contrast_is_no_term(n):
    a = rows(n).requires_grad_()
    got = info_nce(a, rows(n, seed=1))
    assert (got.total.item(), got.terms.item(), got.correct.item()) == (0, 0, 0)
    got.total.backward()
    assert torch.isfinite(a.grad).all()


def test_a_row_without_match_is_a_candidate_only():
    a, b = rows(2), rows(3, seed=1)
    match = torch.eye(2, 3, dtype=torch.bool)
    got = info_nce(a, b, match=match)
    assert got.terms == 2
    assert got.total > info_nce(a, b[:2]).total


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="pass `match`"):
        info_nce(rows(2), rows(3))
    with pytest.raises(ValueError, match=r"exclude has shape \(2, 2\)"):
        info_nce(rows(3), rows(3), exclude=torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"match has shape \(3, 2\), expected \(3, 3\)"):
        info_nce(rows(3), rows(3), match=torch.zeros(3, 2, dtype=torch.bool))
