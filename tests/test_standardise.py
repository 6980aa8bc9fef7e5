"""Standardisation: the statistics of the first batches, no dependence on the batch in hand."""

from __future__ import annotations

import pytest
import torch

from medssml.standardise import FIRST, Standardise


def test_before_the_first_batch_it_is_the_identity() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Standardise(4)(x), x)


def test_the_first_batch_gives_its_mean_and_variance() -> None:
    layer, x = Standardise(4), 5 + 0.01 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    layer.follow(x)
    torch.testing.assert_close(layer.mean, x.mean(0))
    torch.testing.assert_close(layer.variance, x.var(0, unbiased=False))
    out = layer(x)
    torch.testing.assert_close(out.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    assert out.std(0).sub(1).abs().max() < 0.05


def test_the_first_batches_give_the_statistics_of_all_and_later_ones_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Standardise(2)
    drawn = [torch.randn(16, 2, generator=generator) * torch.tensor([1.0, 3.0]) + 7.0 * i for i in range(FIRST)]
    for rows in drawn:
        layer.follow(rows)
    torch.testing.assert_close(layer.mean, torch.cat(drawn).mean(0))
    torch.testing.assert_close(layer.variance, torch.cat(drawn).var(0, unbiased=False))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.follow(drawn[0] + 100)
    torch.testing.assert_close(dict(layer.state_dict()), before, rtol=0, atol=0)


def test_a_common_shift_of_the_features_does_not_run_away() -> None:
    """A loss that only wants the mean to be 1 is satisfied, and then at rest: with running statistics it never is."""
    shift, layer = torch.zeros(1, requires_grad=True), Standardise(1)
    x = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    for _ in range(300):
        features = x + shift
        layer.follow(features)
        (layer(features).mean() - 1).square().backward()
        assert shift.grad is not None
        shift.data -= 0.1 * shift.grad
        shift.grad = None
    assert shift.item() < 5


@pytest.mark.parametrize("rows", [None, torch.ones(1, 3)])
def test_fewer_than_two_rows_change_nothing(rows: torch.Tensor | None) -> None:
    layer = Standardise(3)
    layer.follow(rows)
    assert int(layer.batches) == 0 and not layer.mean.any()


def test_a_row_is_the_same_in_any_batch_and_evaluation_follows_nothing() -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    layer = Standardise(3)
    layer.follow(x)
    torch.testing.assert_close(layer(x)[2:3], layer(x[2:3]))
    before = layer.mean.clone()
    layer.eval().follow(x + 100)
    torch.testing.assert_close(layer.mean, before)


def test_rows_that_are_not_finite_leave_no_trace() -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    bad = torch.tensor([[0.0, float("nan"), 0.0], [float("inf"), 0.0, 0.0]])
    whole, poisoned = Standardise(3), Standardise(3)
    whole.follow(x)
    poisoned.follow(torch.cat([bad[:1], x, bad[1:]]))
    torch.testing.assert_close(poisoned.state_dict(), whole.state_dict())
    poisoned.follow(bad)
    assert int(poisoned.batches) == 1


def test_a_nearly_dead_feature_is_not_blown_up() -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    x[:, 0] *= 1e-9
    layer = Standardise(4)
    layer.follow(x)
    assert layer(x)[:, 0].abs().max() < 1e-5


def test_features_with_a_scale_of_their_own_do_not_make_the_others_look_dead() -> None:
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 1.0, 1.0, 0.01, 0.02])
    layer = Standardise(6, given=4)
    layer.follow(x)
    torch.testing.assert_close(layer(x)[:, 4:].std(0), torch.ones(2), rtol=0.01, atol=0)


def test_features_with_a_scale_of_their_own_are_left_as_they_are() -> None:
    layer, whole = Standardise(4, given=2), Standardise(2)
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 0.1, 5.0, 2.0]) + 7
    for part in x.split(10):
        layer.follow(part)
        whole.follow(part[:, 2:])
    torch.testing.assert_close(layer(x)[:, :2], x[:, :2])
    torch.testing.assert_close(layer(x)[:, 2:], whole(x[:, 2:]))
