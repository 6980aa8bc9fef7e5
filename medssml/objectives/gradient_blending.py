"""Gradient blending: each modality alone and all together are learned in the measure in which their answers generalise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from medssml.batch import Batch
from medssml.model import MultimodalModel
from medssml.objectives.clock import Clock, Ramp
from medssml.objectives.draws import uniform
from medssml.objectives.step import Step
from medssml.objectives.study_loss import wide
from medssml.objectives.supervised import Supervised

#: A gap that grew by less than this counts as having grown so much.
LEAST_GROWTH = 0.01


class GradientBlending(Supervised):
    """loss = sum over k of w_k L_k,   w_k = (1 / Z) G_k / O_k^2

    k are the modalities, each seen alone, and all of a study together; L_k is the loss of the labels from k. Every `every` epochs
    the losses of all k are measured on the training studies without augmentation, and on those of held-out subjects:

        G_k = held-out loss before - after,   O_k = growth of (held-out loss - training loss)

    over those epochs, G_k of at least 0 and O_k of at least 0.01. So a branch that learned what holds for other subjects as well
    counts more, one that learned by heart less. Until the first epochs are over, and where no branch has gained anything, all
    weights stay as they are; they begin equal. A `share` of the training subjects is held out for it and teaches nothing.

    In the `objectives` of a fine-tuning config it takes the place of the labels. In the paper each k has a head and is trained
    apart to be measured; here all are measured as they are trained together, and the head is one that reads whatever the
    fusion was given.

    [1] Wang, Tran, Feiszli, What makes training multi-modal classification networks hard?, CVPR 2020.

    Args:
        model: has a head for every task.
        tasks: which of its tasks to learn; None for all.
        every: epochs between two measurements.
        share: of the training subjects that are held out.
        modality_dropout: as `Supervised`, of all together.
        weight: in the sum of objectives.

    Raises:
        ValueError: a task that the model does not have, or a number out of range.
    """

    def __init__(
        self,
        model: MultimodalModel,
        tasks: Sequence[str] | None = None,
        *,
        every: int = 5,
        share: float = 0.2,
        modality_dropout: float | Ramp = 0.0,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, tasks, modality_dropout=modality_dropout, weight=weight)
        if every < 1 or not 0 < share < 1:
            raise ValueError(
                f"GradientBlending: every {every}, share {share}; fix: at least one epoch, a share between 0 and 1"
            )
        self.every, self.share = every, share
        branches = len(model.modalities) + 1
        # w_k, of the modalities in their order and of all together; losses of training and held-out studies when last measured.
        self.register_buffer("weights", torch.full((branches,), 1 / branches, dtype=torch.float64))
        self.register_buffer("measured", torch.full((2, branches), torch.nan, dtype=torch.float64))
        self.weights: Tensor
        self.measured: Tensor

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss; "loss/BRANCH" and "weight/BRANCH" of each modality that a labelled study has, and of "all"."""
        found = {name: self._alone(step, name) for name in step.model.modalities}
        losses = self._task_losses(step, step.fuse(step.encoded, self._within(step)))
        found["all"] = self._mean(step, losses) if losses else None
        terms: list[Tensor] = []
        logged: dict[str, Tensor] = {}
        for (name, loss), weight in zip(found.items(), self.weights, strict=True):
            if loss is not None:
                terms.append(weight.to(loss.dtype) * loss)
                logged |= {f"loss/{name}": loss.detach(), f"weight/{name}": weight.to(loss.dtype)}
        return {"loss": torch.stack(terms).sum(), **logged} if terms else None

    def begin_epoch(self, clock: Clock, model: MultimodalModel, studies: Iterable[Batch]) -> None:
        """Measures, every `every` epochs; see `Objective.begin_epoch`."""
        if clock.epoch % self.every:
            return
        now = self._losses_of(model, studies).to(self.measured)
        self.weights = blending_weights(self.measured, now, self.weights)
        self.measured = now

    def _weights(self, step: Step, task: str, asked: Tensor | None = None) -> Tensor:
        weight = super()._weights(step, task, asked)
        return torch.where(self._held_out(step.batch), 0.0, weight) if self.training else weight

    def _held_out(self, batch: Batch) -> Tensor:
        """(B,) bool: studies of subjects that teach nothing."""
        return uniform(batch.subject, 1, "gradient blending")[:, 0] < self.share

    def _losses_of(self, model: MultimodalModel, studies: Iterable[Batch]) -> Tensor:
        """(2, K) losses of each branch on training and on held-out studies: the mean over tasks of the mean over studies."""
        total = torch.zeros(len(self.tasks), 2, len(self.weights), dtype=torch.float64)
        count = torch.zeros_like(total)
        for batch in studies:
            step = Step(model, batch)
            held = self._held_out(step.batch)
            for branch in range(len(self.weights)):
                within = step.present & _members(branch, step.present)
                fused = step.fuse(step.encoded, within)
                for place, (name, task) in enumerate(self.tasks.items()):
                    if name not in step.batch.targets:
                        continue
                    targets = step.batch.targets[name]
                    each = self.losses[place](task, wide(model.heads[name](fused)), targets.nan_to_num(0.0)).double()
                    for part, rows in enumerate((~held, held)):
                        asked = rows & torch.isfinite(targets) & within.any(1)
                        total[place, part, branch] += each[asked].sum().cpu()
                        count[place, part, branch] += int(asked.sum())
        known = count > 0
        means = torch.where(known, total / count.clamp(min=1), 0.0)
        return torch.where(known.any(0), means.sum(0) / known.sum(0).clamp(min=1), torch.nan)


def blending_weights(before: Tensor, after: Tensor, weights: Tensor) -> Tensor:
    """(K,) that sum to 1, of losses (2, K) on training and held-out studies before and after; `weights` where none gained."""
    gain = (before[1] - after[1]).clamp(min=0)
    growth = ((after[1] - after[0]) - (before[1] - before[0])).abs().clamp(min=LEAST_GROWTH)
    worth = torch.where(torch.isfinite(gain + growth), gain / growth.square(), 0.0)
    return worth / worth.sum() if bool(worth.sum() > 0) else weights


def _members(branch: int, present: Tensor) -> Tensor:
    """(M,) bool: the modalities of a branch; all of the one after the last."""
    modalities = torch.arange(present.shape[1], device=present.device)
    return modalities == branch if branch < present.shape[1] else modalities >= 0
