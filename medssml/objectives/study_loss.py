"""What a wrong answer costs: the loss of each study, which the remedies for unreliable or unbalanced labels replace."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssml.config import Configured
from medssml.model import Task


class StudyLoss(Configured, nn.Module):
    """The loss of each labelled study of one task; state that is kept per study goes by the study's index."""

    def forward(self, task: Task, logits: Tensor, targets: Tensor, index: Tensor | None = None) -> Tensor:
        """(B,) losses.

        Args:
            task: what is predicted.
            logits: (B,) for a binary task, (B, K) for classes, (B,) float64 values of a regression in the table's unit.
            targets: (B,), all finite; what stands where a study is unlabelled is left out by the caller.
            index: (B,) position of each study among the training studies, where it is known.
        """
        raise NotImplementedError


class CrossEntropy(StudyLoss):
    """Cross-entropy, or the squared error of a regression in standard deviations of its training studies.

    Args:
        label_smoothing: s: the target becomes (1 - s) y + s / K (Szegedy et al. 2016); not for regression.
    """

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


def wide(logits: Tensor) -> Tensor:
    """In float32 or better."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
