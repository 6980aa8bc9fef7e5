"""Weights that follow the ones that are trained: a running mean for validation, or the teacher of an objective."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from medssml.model import MultimodalModel


class MovingAverage(nn.Module):
    """A copy of a model and of the objectives that learn with it, w <- decay w + (1 - decay) new, in evaluation mode.

    As a teacher it begins with the weights that the student begins with (Tarvainen and Valpola 2017; He et al. 2020); as a
    running mean for validation with those after the first step, so that random weights are no part of it. Buffers, such
    as running statistics, are those of the student.

    Args:
        model: what is followed. objectives: that are followed with it.
        begin_after_first: the first update is a copy.
    """

    def __init__(self, model: MultimodalModel, objectives: Sequence[nn.Module], *, begin_after_first: bool) -> None:
        super().__init__()
        self.model: MultimodalModel = copy.deepcopy(model)
        self.objectives = nn.ModuleList(copy.deepcopy(list(objectives)))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.updates: torch.Tensor
        self.begin_after_first = begin_after_first
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> MovingAverage:
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, model: MultimodalModel, objectives: Sequence[nn.Module], decay: float) -> None:
        """One step towards the weights as they are now."""
        if self.begin_after_first and int(self.updates) == 0:
            decay = 0.0
        for mine, new in [(self.model, model), *zip(self.objectives, objectives, strict=True)]:
            own: list[torch.Tensor] = list(mine.parameters())
            other = [parameter.detach() for parameter in new.parameters()]
            if own:
                torch._foreach_lerp_(own, other, 1.0 - decay)
            for buffer, value in zip(mine.buffers(), new.buffers(), strict=True):
                # One that holds a number for each study is as long as the student's is by now.
                buffer.resize_(value.shape).copy_(value)
        self.updates += 1

    def copies(self, objectives: Sequence[nn.Module]) -> dict[nn.Module, nn.Module]:
        """Objective -> its copy here."""
        return dict(zip(objectives, self.objectives, strict=True))
