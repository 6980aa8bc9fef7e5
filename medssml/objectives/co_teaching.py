"""Co-teaching: two models, of which each learns from the studies whose labels the other finds easy."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from medssml.losses import all_gather_rows, global_sum
from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.objectives.study_loss import StudyLoss, wide
from medssml.objectives.supervised import Supervised


class CoTeaching(Supervised):
    """Of a task's labelled studies each of two models names the share R that it has the smallest loss on; the other learns those

        R = 1 - forget min(done / until, 1)

    A model learns right labels first, so those of small loss are mostly right, and two models that differ do not confirm each
    other's errors. The second model begins as a copy of the first, with heads of its own, sees the same batches through other
    draws of modality dropout, and is left behind when the run ends. A step costs twice as much, and memory as well.

    In the `objectives` of a fine-tuning config it takes the place of the labels.

    [1] Han et al., Co-teaching: robust training of deep neural networks with extremely noisy labels, NeurIPS 2018.

    Args:
        model: has a head for every task.
        tasks: which of its tasks to learn; None for all. Not for a regression.
        forget: the share of labels that may be wrong, 0 to below 1; in the paper the rate of noise.
        until: share of the run after which so many are left out; 10 of 200 epochs in the paper.
        modality_dropout: as `Supervised`.
        weight: in the sum of objectives.

    Raises:
        ValueError: a task that the model does not have, or that is a number; a share out of range.
    """

    def __init__(
        self,
        model: MultimodalModel,
        tasks: Sequence[str] | None = None,
        *,
        forget: float = 0.3,
        until: float = 0.05,
        modality_dropout: float | Ramp = 0.0,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, tasks, modality_dropout=modality_dropout, weight=weight)
        if not 0 <= forget < 1:
            raise ValueError(f"forget is {forget}; fix: a share from 0 to below 1, such as 0.3")
        if not 0 < until <= 1:
            raise ValueError(f"until is {until}; fix: a share of the run above 0 and at most 1")
        numbers = [name for name, task in self.tasks.items() if task.kind == "regression"]
        if numbers:
            raise ValueError(
                f"CoTeaching is for classes, and task {numbers[0]!r} is a number; fix: leave it out of tasks"
            )
        self.forget, self.until = forget, until
        self.peer: MultimodalModel = copy.deepcopy(model)
        for name in self.tasks:
            self.peer.heads[name].linear.reset_parameters()

    @property
    def peers(self) -> tuple[MultimodalModel, ...]:
        """See `Objective.peers`."""
        return (self.peer,)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """The sum of both models' losses, "loss/TASK" for every task."""
        share = 1 - self.forget * min(step.clock.done / self.until, 1.0)
        both = (self._losses_of(step), self._losses_of(step.seen_by(self.peer, seed=step.seed + 1)))
        losses = {}
        for name in both[0]:
            one, other = both[0][name], both[1][name]
            targets = step.batch.targets[name]
            labelled = torch.isfinite(targets)
            total = [
                _mean_over(mine, easy)
                for mine, easy in (
                    (one, _smallest(other.detach(), labelled, share)),
                    (other, _smallest(one.detach(), labelled, share)),
                )
            ]
            if total[0] is not None and total[1] is not None:
                losses[name] = total[0] + total[1]
        if not losses:
            return None
        return {"loss": self._mean(step, losses), **{f"loss/{task}": v.detach() for task, v in losses.items()}}

    def _losses_of(self, step: Step) -> dict[str, Tensor]:
        """Task -> (B,) loss of each study by one of the models; of one without a label, anything."""
        fused = step.fuse(step.encoded, self._within(step))
        found = {}
        for (name, task), loss_of in zip(self.tasks.items(), self.losses, strict=True):
            if name in step.batch.targets:
                logits = wide(step.model.heads[name](fused))
                found[name] = cast(StudyLoss, loss_of)(task, logits, step.batch.targets[name].nan_to_num(0.0))
        return found


def _smallest(losses: Tensor, among: Tensor, share: float) -> Tensor:
    """(B,) bool: of the studies `among` (B,) of all ranks the share with the smallest losses (B,), at least one; equal ones go
    together."""
    everyone = all_gather_rows(losses[among])
    if len(everyone) == 0:
        return among
    # Rounded, as 0.7 x 10 is more than 7 to a computer.
    count = max(1, math.ceil(round(share * len(everyone), 6)))
    return among & (losses <= everyone.sort().values[count - 1])


def _mean_over(losses: Tensor, chosen: Tensor) -> Tensor | None:
    """The mean of losses (B,) over the chosen ones (B,) of all ranks; None where there is none."""
    count = global_sum(chosen.sum())
    total = global_sum(torch.where(chosen, losses, 0.0).sum())
    return total / count if count > 0 else None
