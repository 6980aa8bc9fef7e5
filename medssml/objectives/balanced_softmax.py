"""Balanced softmax: the imbalance of the training labels is taken for what it is, so that rare classes are not passed over."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from medssml.model import Task
from medssml.objectives.study_loss import StudyLoss


class BalancedSoftmax(StudyLoss):
    """l = -log softmax(z + tau log n)_y   with n_k the training studies of class k

    The answers z are those for classes that are equally frequent: what is asked in evaluation is z alone. With tau = 1
    balanced softmax [1]; other values are logit adjustment [2]. A class without a training study counts as one.

    [1] Ren et al., Balanced meta-softmax for long-tailed visual recognition, NeurIPS 2020.
    [2] Menon et al., Long-tail learning via logit adjustment, ICLR 2021.

    Args:
        tau: how much of the imbalance is taken out.

    Raises:
        ValueError: tau is below 0.
    """

    def __init__(self, tau: float = 1.0) -> None:
        super().__init__()
        if tau < 0:
            raise ValueError(f"tau is {tau}; fix: 1, or another number of at least 0")
        self.tau = tau
        self.register_buffer("shift", torch.zeros(0), persistent=False)
        self.shift: Tensor

    def for_task(self, name: str, task: Task) -> Self:
        """See `StudyLoss.for_task`; the counts are those of the task's training labels."""
        made = super().for_task(name, task)
        counts = task.counts.get("train", {})
        found = [counts.get(c, 0) for c in task.classes]
        if sum(found) == 0:
            raise ValueError(
                f"loss BalancedSoftmax: task {name!r} says not how many training studies each class has; fix: medssml "
                f"finetune, which counts them, or Task(counts={{'train': {{...}}}})"
            )
        made.shift = self.tau * torch.tensor(found, dtype=torch.float32).clamp(min=1).log()
        return made

    def forward(self, task: Task, logits: Tensor, targets: Tensor, index: Tensor | None = None) -> Tensor:
        """See `StudyLoss.forward`."""
        shift = self.shift.to(logits)
        if task.kind == "binary":
            return F.binary_cross_entropy_with_logits(
                logits + (shift[1] - shift[0]), targets.to(logits.dtype), reduction="none"
            )
        return F.cross_entropy(logits + shift, targets.long(), reduction="none")
