"""Transfer by pseudo-pairs: a study of the student learns the vectors of the teacher's studies that might be its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.losses import transport
from medssml.losses.info_nce import cosine_logits
from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.transfer.unpaired import Others, UnpairedTransfer


class PseudoPairTransfer(UnpairedTransfer):
    """loss = mean over the student's studies i of  |W s_i - sum over j of P_ij t_j|^2 / D',   rows of P of sum 1

    P, without gradient, is the optimal transport [1] of the step's studies to the teacher's at the cost
    |a_i - b_j|^2 / (2 T) + (1 - cos(W s_i, t_j)) / 2, of what is said of both in T tasks and of where they lie: labels decide
    first, and what the student has learned refines them. A study of the teacher is matched as often as studies say what is said
    of it: neither are a few of them matched by all, nor a class that is rarer here as often as there. A study that both see has
    its own vector in the place of the sum.

    [1] Cuturi, Sinkhorn distances, NeurIPS 2013; for targets as in Courty et al., Optimal transport for domain adaptation, PAMI
    2017, with classes in the cost and barycentres of the plan as images. Across modalities no one paper has this objective.

    Args: as of `UnpairedTransfer`, and
        epsilon: of the transport. iterations: of it.

    Raises:
        ValueError: an epsilon that is not positive; as `UnpairedTransfer`.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        source: Sequence[str],
        tasks: Sequence[str] | None = None,
        others: Others | None = None,
        epsilon: float = 0.05,
        iterations: int = 50,
        draw: int = 256,
        target: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, source=source, others=others, tasks=tasks, draw=draw, target=target, weight=weight)
        if not epsilon > 0:
            raise ValueError(f"epsilon is {epsilon}; fix: a positive number, such as 0.05")
        self.epsilon, self.iterations = epsilon, iterations

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the mean cosine of vectors and what they learn."""
        if self.seen(step) == 0:
            return None
        mine, others = self.mine(step), self.others(step)
        with torch.autocast(mine.vectors.device.type, enabled=False):
            wanted, lone = mine.theirs.clone(), ~mine.both
            wanted[lone] = self.plan(mine.vectors[lone], mine.said[lone], others) @ others.vectors
            error = (mine.vectors - wanted).square().mean()
        cosine = F.cosine_similarity(mine.vectors.detach(), wanted, dim=1).mean()
        return {"loss": error * step.share(self.seen), "cosine": cosine}

    def plan(self, vectors: Tensor, said: Tensor, others: Others) -> Tensor:
        """(n, m) who might belong to whom, each row of sum 1, without gradient.

        Args:
            vectors: (n, D'). said: (n, C).
        """
        said = said.detach()
        unlike = (said[:, None] - others.said[None]).square().sum(-1) / (2 * len(self.tasks))
        apart = (1 - cosine_logits(vectors.detach(), others.vectors, 1.0)) / 2
        # As often as studies say what is said of it.
        shares = (-unlike / self.epsilon).softmax(1).mean(0)
        cost = unlike + apart
        return len(cost) * transport(cost, epsilon=self.epsilon, iterations=self.iterations, columns=shares)
