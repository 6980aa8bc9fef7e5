"""Symmetric cross-entropy: beside what the label says of the answer, what the answer says of the label."""

from __future__ import annotations

from torch import Tensor

from medssml.model import Task
from medssml.objectives.study_loss import StudyLoss, log_probabilities, of_label


class SymmetricCrossEntropy(StudyLoss):
    """l = alpha CE + beta RCE,   CE = -log p_y,   RCE = -sum_k p_k log y_k = -A (1 - p_y)   with log 0 = A

    The reverse term is the mean absolute error, which wrong labels do not dominate; the first one learns faster.

    [1] Wang et al., Symmetric cross entropy for robust learning with noisy labels, ICCV 2019.

    Args:
        alpha, beta: weights of the two terms; those of the paper for ten classes.
        log_zero: A, below 0.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(self, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0) -> None:
        super().__init__()
        if alpha < 0 or beta < 0 or alpha + beta == 0:
            raise ValueError(f"alpha is {alpha} and beta is {beta}; fix: 0 or more, one of them above 0")
        if log_zero >= 0:
            raise ValueError(f"log_zero is {log_zero}; fix: a number below 0, such as -4")
        self.alpha, self.beta, self.log_zero = alpha, beta, log_zero

    def forward(self, task: Task, logits: Tensor, targets: Tensor, index: Tensor | None = None) -> Tensor:
        """See `StudyLoss.forward`."""
        log_p = of_label(log_probabilities(task, logits), targets)
        return -self.alpha * log_p - self.beta * self.log_zero * (1 - log_p.exp())
