"""Batch normalisation over all ranks: the formula, what it does to gradients, few rows, evaluation."""

import pytest
import torch

from medssml.spaces import GatheredNorm, NormedHead, gathered_norms


@pytest.fixture
def rows():
    return 3 + torch.randn(8, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.5, 1.0, 2.0, 5.0])


def test_each_feature_gets_mean_0_and_sd_1(rows):
    expected = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(GatheredNorm(4)(rows), expected)


def test_no_loss_moves_what_all_rows_have_in_common(rows):
    """The gradient is orthogonal to a common shift and to a common factor of each feature."""
    rows.requires_grad_()
    (GatheredNorm(4)(rows) * torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).sum().backward()
    assert rows.grad.abs().max() > 1e-3
    torch.testing.assert_close(rows.grad.sum(0), torch.zeros(4), atol=1e-5, rtol=0)
    apart = (rows - rows.mean(0)).detach()
    torch.testing.assert_close((rows.grad * apart).sum(0) / apart.square().sum(0), torch.zeros(4), atol=1e-3, rtol=0)


def test_one_row_or_none_goes_by_the_running_statistics(rows):
    norm = GatheredNorm(4)
    for _ in range(200):
        norm(rows)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    expected = (rows[:1] - rows.mean(0)) / rows.std(0)
    torch.testing.assert_close(norm(rows[:1]), expected, rtol=1e-3, atol=1e-3)
    assert norm(rows[:0]).shape == (0, 4)
    torch.testing.assert_close(dict(norm.state_dict()), before, rtol=0, atol=0)


def test_evaluation_does_not_depend_on_the_batch(rows):
    norm = GatheredNorm(4)
    norm(rows)
    norm.eval()
    torch.testing.assert_close(norm(rows)[:2], norm(rows[:2]))


def test_what_is_not_finite_does_not_stay(rows):
    """The finite guard skips such a step: it must leave no trace in what evaluation uses."""
    norm = GatheredNorm(4)
    norm(rows)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    assert norm(torch.cat([rows, torch.full((1, 4), torch.nan)])).isnan().all()
    torch.testing.assert_close(dict(norm.state_dict()), before, rtol=0, atol=0)


def test_float32_under_autocast(rows):
    norm = GatheredNorm(4)
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(rows).dtype == torch.float32


def test_without_it_the_embedding_goes_in_as_it_is(rows):
    norms = gathered_norms(4, ["ct", "xray"], wanted=False)
    torch.testing.assert_close(norms["ct"](rows), rows)
    assert isinstance(gathered_norms(4, ["ct"], wanted=True)["ct"], GatheredNorm)


def test_of_the_modalities_that_are_named():
    norms = gathered_norms(4, ["ct", "xray"], wanted=["ct"])
    assert [isinstance(norm, GatheredNorm) for norm in norms.values()] == [True, False]
    with pytest.raises(ValueError, match=r"eeg.*some of ct, xray"):
        gathered_norms(4, ["ct", "xray"], wanted=["eeg"])


def test_a_head_with_norms_is_linear_norm_relu_linear(rows):
    torch.manual_seed(0)
    head = NormedHead(4, 6, 3, layers=3)
    first, scale, _, second, scale2, _, last = head
    for norm in (scale, scale2):
        torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
        torch.nn.init.uniform_(norm.bias, -1.0, 1.0)
    x = rows
    for linear, norm in ((first, scale), (second, scale2)):
        x = x @ linear.weight.T
        x = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt() * norm.weight + norm.bias
        x = x.clamp(min=0)
    torch.testing.assert_close(head(rows), x @ last.weight.T + last.bias)
    head.eval()
    torch.testing.assert_close(head(rows)[:2], head(rows[:2]))
    assert not torch.allclose(head(rows), head(rows - 50))
