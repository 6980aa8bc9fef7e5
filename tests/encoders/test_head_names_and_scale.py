"""Heads: a regression is learned in standard deviations and answered in its unit; a task may have any name."""

from __future__ import annotations

import pytest
import torch

from medssml.batch import Fused
from medssml.encoders.heads import Head, Heads
from medssml.model import Task
from medssml.objectives.study_loss import CrossEntropy


def fused(n: int = 6) -> Fused:
    return Fused(
        torch.zeros(n, 1, 4), torch.ones(n, 1).bool(), torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    )


@pytest.mark.parametrize(("mean", "sd"), [(65.0, 10.0), (1e9, 3.0), (1e-6, 1e-7), (7.0, 1.0)])
def test_a_regression_begins_at_the_training_mean_and_its_loss_is_that_of_standardised_targets(mean, sd):
    head = Head(4, "regression", mean=mean, sd=sd)
    assert torch.equal(head(fused()), torch.full((6,), mean, dtype=torch.float64))
    torch.nn.init.normal_(head.linear.weight, generator=torch.Generator().manual_seed(1))
    z = head.linear(fused().pooled).squeeze(1)
    targets = mean + sd * torch.linspace(-2, 2, 6, dtype=torch.float64)
    loss = CrossEntropy()(Task("regression", mean=mean, sd=sd), head(fused()), targets)
    torch.testing.assert_close(loss, (z - torch.linspace(-2, 2, 6)).square(), rtol=1e-4, atol=1e-5)
    loss.mean().backward()
    expected = (2 * (z - torch.linspace(-2, 2, 6))).detach().mean()
    torch.testing.assert_close(head.linear.bias.grad, expected[None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["FEV1.0", "type", "keys", "training", "%a", "a b", "50%", "forward", "pop"])
def test_a_task_may_have_any_name(name):
    heads, again = Heads(), Heads()
    for made in (heads, again):
        made[name] = Head(4)
        made["sick"] = Head(4)
    again.load_state_dict(heads.state_dict())
    assert torch.equal(heads[name](fused()), again[name](fused()))
    assert list(heads) == [name, "sick"] and name in heads and len(heads) == 2
    for key, parameter in heads.named_parameters():
        assert heads.get_parameter(key) is parameter
    del heads[name]
    assert list(heads) == ["sick"] and not any(key.startswith("%") for key in heads.state_dict())


def test_names_that_differ_have_weights_of_their_own():
    heads = Heads()
    for name in ("a.b", "%a%2Eb", "a%2Eb"):
        heads[name] = Head(4)
    assert len(heads.state_dict()) == 6
