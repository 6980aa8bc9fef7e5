"""Generalised cross-entropy: between the cross-entropy and the mean absolute error, so that wrong labels pull less."""

from __future__ import annotations

import torch
from torch import Tensor

from medssml.model import Task
from medssml.objectives.clock import Clock
from medssml.objectives.per_study import PerStudy
from medssml.objectives.study_loss import StudyLoss, log_probabilities, of_label


class GeneralisedCrossEntropy(StudyLoss):
    """l_q(p) = (1 - p^q) / q   with p the probability of the class that the study is labelled with

    Its gradient is p^q times that of the cross-entropy: a label that the model contradicts pulls less. The cross-entropy for
    q -> 0, the mean absolute error at q = 1. Truncated, with k:

        l = w l_q(p) + (1 - w) l_q(k)

    where w = 0 prunes a study whose p was at most k when it was last seen. Pruning begins after a share of the run and is
    renewed once an epoch. (The paper renews w by a pass over all training studies; here each study's last answer is kept.)

    [1] Zhang and Sabuncu, Generalized cross entropy loss for training deep neural networks with noisy labels, NeurIPS 2018.

    Args:
        q: above 0 and at most 1; 0.7 in the paper.
        k: of the truncation, between 0 and 1, 0.5 in the paper; None prunes nothing.
        prune_after: share of the run before the first pruning; 40 of 120 epochs in the paper.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(self, q: float = 0.7, k: float | None = None, prune_after: float = 1 / 3) -> None:
        super().__init__()
        if not 0 < q <= 1:
            raise ValueError(f"q is {q}; fix: above 0 and at most 1, such as 0.7")
        if k is not None and not 0 < k < 1:
            raise ValueError(f"k is {k}; fix: a probability between 0 and 1, such as 0.5, or null for no truncation")
        if not 0 <= prune_after <= 1:
            raise ValueError(f"prune_after is {prune_after}; fix: a share of the run from 0 to 1")
        self.q, self.k, self.prune_after = q, k, prune_after
        #: Of each study the probability of its label when last seen, and 1 where it is pruned.
        self.answered = PerStudy()
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.epoch: Tensor

    def forward(self, task: Task, logits: Tensor, targets: Tensor, index: Tensor | None = None) -> Tensor:
        """See `StudyLoss.forward`."""
        each = self._of(of_label(log_probabilities(task, logits), targets))
        if self.k is None or index is None:
            return each
        pruned = self.answered.of(index, 2)[:, 1] > 0
        return torch.where(pruned, self._of(each.new_tensor(self.k).log()), each)

    def _of(self, log_p: Tensor) -> Tensor:
        # (1 - p^q) / q, exact also where p^q is next to 1.
        return -torch.expm1(self.q * log_p) / self.q

    def look(self, task: Task, logits: Tensor, targets: Tensor, index: Tensor, at: int) -> None:
        """See `StudyLoss.look`."""
        if self.k is not None:
            p = of_label(log_probabilities(task, logits), targets).exp()
            self.answered.offer(index, p[:, None], at)

    def after_step(self, clock: Clock) -> None:
        """See `StudyLoss.after_step`."""
        # At the first step of an epoch, before its answers are written.
        if self.k is not None and clock.epoch > int(self.epoch) and clock.done >= self.prune_after:
            everyone = torch.arange(len(self.answered.rows), device=self.answered.rows.device)
            p = self.answered.of(everyone, 2)[:, 0]
            # A probability of exactly 0 stands for a study that was never seen.
            self.answered.write(everyone, torch.stack([p, ((p <= self.k) & (p > 0)).to(p)], dim=1))
        self.epoch.fill_(clock.epoch)
        found = self.answered.taken()
        if found is not None:
            index, p = found
            kept = self.answered.of(index, 2)[:, 1:]
            self.answered.write(index, torch.cat([p.to(kept).clamp(min=torch.finfo(kept.dtype).tiny), kept], dim=1))
