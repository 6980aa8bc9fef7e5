"""Modulation: the encoders of modalities that answer better than the others are held back, between backward pass and step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from medssml.config import Configured
from medssml.model import MultimodalModel, Task
from medssml.objectives.clock import Clock
from medssml.objectives.step import Step
from medssml.objectives.study_loss import log_probabilities, of_label, wide


class Modulation(Configured, nn.Module):
    """What looks at the batches of a step and then changes the gradients of the encoders.

    Which modality answers better is asked of the fusion, from a part of each study; in the papers it is the part of a linear
    head after concatenation that reads a modality.

    Args:
        until: share of the run after which gradients stay as they are.

    Raises:
        ValueError: no share of a run.
    """

    def __init__(self, until: float = 1.0) -> None:
        super().__init__()
        if not 0 < until <= 1:
            raise ValueError(f"until is {until}; fix: a share of the run above 0 and at most 1")
        self.until = until

    def look(self, step: Step, tasks: Mapping[str, Task]) -> None:
        """Keeps how well each modality answers a batch. tasks: that are learned."""
        raise NotImplementedError

    def modulate(self, clock: Clock, model: MultimodalModel) -> dict[str, float]:
        """Changes the gradients that are there; modality -> its factor."""
        raise NotImplementedError

    def after_step(self, clock: Clock) -> None:
        """After each step of the optimiser that was not skipped: for what is kept from step to step."""


def scale_gradients(encoder: nn.Module, factor: float, *, noise: bool) -> None:
    """Multiplies the gradients that an encoder has; with `noise`, adds normal noise of the spread that each matrix's had."""
    for parameter in encoder.parameters():
        if parameter.grad is None:
            continue
        spread = parameter.grad.std() if noise and parameter.ndim > 1 else None
        parameter.grad.mul_(factor)
        if spread is not None:
            parameter.grad.add_(torch.randn_like(parameter.grad) * spread)


def answered(step: Step, tasks: Mapping[str, Task], within: Tensor) -> dict[str, Tensor]:
    """Task of classes -> logits (B,) or (B, K) from what is `within` (B, M)."""
    fused = step.fuse(step.encoded, within)
    return {
        name: wide(step.model.heads[name](fused))
        for name, task in tasks.items()
        if task.kind != "regression" and name in step.batch.targets
    }


def label_log_probabilities(
    step: Step, tasks: Mapping[str, Task], logits: Mapping[str, Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each task the log probability (B,) that logits give the label, and (B,) bool, who has one."""
    for name, given in logits.items():
        targets = step.batch.targets[name]
        yield of_label(log_probabilities(tasks[name], given), targets.nan_to_num(0.0)), torch.isfinite(targets)
