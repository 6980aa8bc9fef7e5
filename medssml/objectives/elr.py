"""Early-learning regularisation: a model learns right labels first, and is held to what it said of each study then."""

from __future__ import annotations

import torch
from torch import Tensor

from medssml.model import Task
from medssml.objectives.clock import Clock
from medssml.objectives.per_study import PerStudy
from medssml.objectives.study_loss import StudyLoss, log_probabilities, of_label

#: Probabilities stay this far from 0 and 1 in the regularisation, as in the authors' code.
LEAST = 1e-4


class EarlyLearning(StudyLoss):
    """l = CE + strength log(1 - <t, p>),   t <- momentum t + (1 - momentum) p

    p are the probabilities of the classes, t a running mean of them for each training study, without gradient. The second
    term's gradient cancels that of the cross-entropy where the label contradicts t, so that it is not memorised. t moves
    once a step, by what the study is answered from all that is seen of it.

    [1] Liu et al., Early-learning regularization prevents memorization of noisy labels, NeurIPS 2020.

    Args:
        strength: lambda; 3 for ten classes in the paper.
        momentum: beta, from 0 to below 1; 0.7 in the paper.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(self, strength: float = 3.0, momentum: float = 0.7) -> None:
        super().__init__()
        if strength < 0:
            raise ValueError(f"strength is {strength}; fix: 0 or a positive number")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}; fix: from 0 to below 1")
        self.strength, self.momentum = strength, momentum
        self.targets = PerStudy()

    def forward(self, task: Task, logits: Tensor, targets: Tensor, index: Tensor | None = None) -> Tensor:
        """See `StudyLoss.forward`."""
        log_p = log_probabilities(task, logits)
        cross_entropy = -of_label(log_p, targets)
        if index is None:
            return cross_entropy
        p = log_p.exp().clamp(LEAST, 1 - LEAST)
        agreement = (self._moved(p.detach(), index) * p).sum(1)
        return cross_entropy + torch.where(index >= 0, self.strength * torch.log1p(-agreement), 0.0)

    def _moved(self, p: Tensor, index: Tensor) -> Tensor:
        """(n, K) the targets of the studies at index (n,) after they were answered p (n, K)."""
        now = self.targets.of(index, p.shape[1]).to(p)
        return self.momentum * now + (1 - self.momentum) * p / p.sum(1, keepdim=True)

    def look(self, task: Task, logits: Tensor, targets: Tensor, index: Tensor, at: int) -> None:
        """See `StudyLoss.look`."""
        self.targets.offer(index, log_probabilities(task, logits).exp().clamp(LEAST, 1 - LEAST), at)

    def after_step(self, clock: Clock) -> None:
        """See `StudyLoss.after_step`."""
        found = self.targets.taken()
        if found is not None:
            self.targets.write(found[0], self._moved(found[1], found[0]))
