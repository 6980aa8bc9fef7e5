"""What a wrong answer costs: the loss of each study, which the remedies for unreliable or unbalanced labels replace."""

from __future__ import annotations

import copy
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssml.config import Configured
from medssml.model import Task
from medssml.objectives.clock import Clock


class StudyLoss(Configured, nn.Module):
    """The loss of each labelled study of one task; state that is kept per study goes by the study's index.

    Attributes:
        of_numbers: whether it also says what an answer to a regression costs.
    """

    of_numbers: bool = False

    def for_task(self, name: str, task: Task) -> Self:
        """The same for one task of a model, with a state of its own.

        Raises:
            ValueError: it says nothing of such a task.
        """
        if task.kind == "regression" and not self.of_numbers:
            raise ValueError(
                f"loss {type(self).__name__} is for classes, and task {name!r} is a number; fix: CrossEntropy, or learn "
                f"{name} by itself"
            )
        return copy.deepcopy(self)

    def forward(self, task: Task, logits: Tensor, targets: Tensor, index: Tensor | None = None) -> Tensor:
        """(B,) losses.

        Args:
            task: what is predicted.
            logits: (B,) for a binary task, (B, K) for classes, (B,) float64 values of a regression in the table's unit.
            targets: (B,), all finite; what stands where a study is unlabelled is left out by the caller.
            index: (B,) position of each study among the training studies, where it is known; -1 for none.
        """
        raise NotImplementedError

    def look(self, task: Task, logits: Tensor, targets: Tensor, index: Tensor, at: int) -> None:
        """Shows what labelled training studies are answered from all that is seen of them: for state that is kept per study.

        Args:
            task, logits, targets: as `forward`, of n labelled studies.
            index: (n,) their positions among the training studies.
            at: the step of the run.
        """

    def after_step(self, clock: Clock) -> None:
        """After each step of the optimiser that was not skipped: what was looked at is kept here."""


class CrossEntropy(StudyLoss):
    """Cross-entropy, or the squared error of a regression in standard deviations of its training studies.

    Args:
        label_smoothing: s: the target becomes (1 - s) y + s / K (Szegedy et al. 2016); not for regression.
    """

    of_numbers = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; fix: 0 for none, or a share below 1")
        self.label_smoothing = label_smoothing

    def forward(self, task: Task, logits: Tensor, targets: Tensor, index: Tensor | None = None) -> Tensor:
        """See `StudyLoss.forward`."""
        if task.kind == "regression":
            return ((logits - targets) / task.sd).square().float()
        if task.kind == "binary":
            soft = targets.to(logits.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
        return F.cross_entropy(logits, targets.long(), reduction="none", label_smoothing=self.label_smoothing)


def log_probabilities(task: Task, logits: Tensor) -> Tensor:
    """(B, K) log of the probability of each class, of the logits (B,) of a binary task or (B, K)."""
    if task.kind == "binary":
        return torch.stack([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=1)
    return logits.log_softmax(1)


def of_label(values: Tensor, targets: Tensor) -> Tensor:
    """(B,) what values (B, K) say of the class that each study is labelled with, targets (B,)."""
    return values.gather(1, targets.long()[:, None]).squeeze(1)


def wide(logits: Tensor) -> Tensor:
    """In float32 or better."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
