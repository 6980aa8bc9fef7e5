"""Weights that follow others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medssml.trainers.moving_average import MovingAverage

from .toy import toy_model


class Counting(nn.Module):
    """An objective with a weight, a statistic, and a number for each study, of which it learns later how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("assigned", torch.full((1, 0), -1))


@pytest.mark.parametrize("begin_after_first", [False, True])
def test_weights_follow_by_the_closed_form_and_buffers_are_the_students(begin_after_first: bool) -> None:
    model, own = toy_model(), Counting()
    mean = MovingAverage(model, [own], begin_after_first=begin_after_first)
    copy = mean.copies([own])[own]
    assert copy is not own and not mean.training and not any(p.requires_grad for p in mean.parameters())
    expected = torch.ones(2)
    for step in range(1, 4):
        with torch.no_grad():
            own.weight.fill_(1.0 + step)
            own.seen.fill_(step)  # type: ignore[operator]
        own.assigned = torch.arange(3 * step)[None]
        mean.update(model, [own], 0.8)
        decay = 0.0 if begin_after_first and step == 1 else 0.8
        expected = decay * expected + (1 - decay) * own.weight.detach()
        torch.testing.assert_close(copy.weight.detach(), expected)
        assert int(copy.seen) == step and torch.equal(copy.assigned, own.assigned)  # type: ignore[arg-type]
    assert int(mean.updates) == 3


def test_it_stays_in_evaluation_mode_and_apart_from_the_model() -> None:
    model = toy_model()
    mean = MovingAverage(model, [], begin_after_first=False)
    assert not mean.train().model.training
    before = [p.clone() for p in mean.model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    assert all(torch.equal(a, b) for a, b in zip(before, mean.model.parameters(), strict=True))
