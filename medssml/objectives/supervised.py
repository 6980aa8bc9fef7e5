"""Labels as an objective: what a study is labelled with, from all that it has and from each modality alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medssml.batch import Fused
from medssml.losses import global_sum
from medssml.model import MultimodalModel, Task
from medssml.objectives.base import Objective
from medssml.objectives.clock import Clock, Ramp, ends, value_at
from medssml.objectives.draws import uniform
from medssml.objectives.modulation import Modulation
from medssml.objectives.step import Step
from medssml.objectives.study_loss import CrossEntropy, StudyLoss, wide


class Supervised(Objective):
    """loss = mean over the tasks that are labelled in the step of the mean over their labelled studies.

    With `unimodal_weight` w, the same loss of each modality seen alone is added, w times their mean: a rich modality
    that answers first leaves no gradient for a poor one, which then fails where it is all there is (the separate
    decoders of mmFormer, Zhang et al. 2022). It costs fusion passes only. `fused_weight` is that of the loss of all together: a
    `Ramp` from 0 lets modalities learn alone first.

    Args:
        model: has a head for every task.
        tasks: which of its tasks to learn; None for all.
        loss: of each study; each task has one of its own, with what it keeps of the training studies.
        modality_dropout: each present modality of a study is hidden with this probability, never all of them (Neverova et
            al. 2016); a number or a `Ramp`.
        unimodal_weight: of the loss of each modality alone; 0 for none. fused_weight: of the loss of all together.
        class_weights: task -> weight of each class in the loss.
        study_weights: task -> weight of the label of each training study, by its index; 1 for a study without one.
        modulation: of the encoders' gradients, where one modality answers better than the others.
        weight: in the sum of objectives.

    Raises:
        ValueError: a task that the model does not have or that the loss is not for, or a probability or weight out of range.
    """

    def __init__(
        self,
        model: MultimodalModel,
        tasks: Sequence[str] | None = None,
        *,
        loss: StudyLoss | None = None,
        modality_dropout: float | Ramp = 0.0,
        unimodal_weight: float | Ramp = 0.0,
        fused_weight: float | Ramp = 1.0,
        class_weights: Mapping[str, Sequence[float]] | None = None,
        study_weights: Mapping[str, Sequence[float]] | None = None,
        modulation: Modulation | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        self.tasks: dict[str, Task] = chosen_tasks(model, tasks)
        if not all(0 <= end < 1 for end in ends(modality_dropout)):
            raise ValueError(f"modality_dropout is {modality_dropout}; fix: a probability from 0 to below 1")
        for name, value in (("unimodal_weight", unimodal_weight), ("fused_weight", fused_weight)):
            if not all(end >= 0 for end in ends(value)):
                raise ValueError(f"{name} is {value}; fix: 0 or a positive number")
        if max(*ends(unimodal_weight), *ends(fused_weight)) == 0:
            raise ValueError("unimodal_weight and fused_weight are 0, and nothing is learned; fix: one of them above 0")
        of_each = CrossEntropy() if loss is None else loss
        self.losses = nn.ModuleList(of_each.for_task(name, task) for name, task in self.tasks.items())
        self.modality_dropout = modality_dropout
        self.unimodal_weight, self.fused_weight = unimodal_weight, fused_weight
        self.class_weights = {name: torch.tensor(list(value)) for name, value in (class_weights or {}).items()}
        self.study_weights = {name: torch.tensor(list(value)) for name, value in (study_weights or {}).items()}
        self.modulation = modulation

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """The loss, "loss/TASK" for every task, "loss/MODALITY alone" for every modality that has a labelled study."""
        # All that a study has, or what modality dropout leaves of it.
        losses = self._task_losses(step, step.fuse(step.encoded, self._within(step)))
        if not losses:
            return None
        loss = value_at(self.fused_weight, step.clock) * self._mean(step, losses)
        if self.modulation is not None and self.training:
            self.modulation.look(step, self.tasks)
        logged = {f"loss/{task}": value.detach() for task, value in losses.items()}

        # Each modality by itself; every rank asks for each.
        factor = value_at(self.unimodal_weight, step.clock)
        if factor > 0:
            alone = {name: self._alone(step, name) for name in step.model.modalities}
            found = {name: value for name, value in alone.items() if value is not None}
            logged |= {f"loss/{name} alone": value.detach() for name, value in found.items()}
            if found:
                loss = loss + factor * torch.stack(list(found.values())).sum() / self._answering(step, len(found))
        return {"loss": loss, **logged}

    def before_step(self, clock: Clock, model: MultimodalModel) -> None:
        """See `Objective.before_step`."""
        if self.modulation is not None:
            self.modulation.modulate(clock, model)

    def after_step(self, clock: Clock) -> None:
        """See `Objective.after_step`; it is losses and modulations that keep something."""
        for loss in self.losses:
            cast(StudyLoss, loss).after_step(clock)
        if self.modulation is not None:
            self.modulation.after_step(clock)

    def _within(self, step: Step) -> Tensor | None:
        rate = value_at(self.modality_dropout, step.clock)
        if not self.training or rate == 0:
            return None
        return hide_modalities(step.present, step.batch.key, rate, step.seed)

    def _alone(self, step: Step, modality: str) -> Tensor | None:
        """The loss of the labelled studies that have a modality, answered from it alone."""
        column = step.model.modalities.index(modality)
        within = torch.zeros_like(step.present)
        within[:, column] = step.present[:, column]
        losses = self._task_losses(step, step.fuse(step.encoded, within), within[:, column])
        return self._mean(step, losses, column) if losses else None

    def _answering(self, step: Step, here: int) -> float:
        """How many modalities have a labelled study in this step of the optimiser; `here` of them in this batch."""
        if len(step.siblings) == 1:
            return here
        counts = [
            self._counts(other, column) for column in range(len(step.model.modalities)) for other in step.siblings
        ]
        table = torch.stack(counts).sum(-1).reshape(len(step.model.modalities), -1).sum(1)
        return float((table > 0).sum())

    def _task_losses(self, step: Step, fused: Fused, asked: Tensor | None = None) -> dict[str, Tensor]:
        """Task -> mean over the labelled studies of all ranks, of those that are `asked` (B,)."""
        losses = {}
        for (name, task), loss_of in zip(self.tasks.items(), self.losses, strict=True):
            if name not in step.batch.targets:
                continue
            weight = self._weights(step, name, asked)
            targets, index = step.batch.targets[name], step.batch.index
            # `where` before the loss and not a product after it: 0 * NaN is NaN.
            known = torch.where(torch.isfinite(targets), targets, 0.0)
            logits = wide(step.model.heads[name](fused))
            each = loss_of(task, logits, known, index)
            if asked is None and self.training and index is not None:
                rows = torch.isfinite(targets) & (index >= 0)
                cast(StudyLoss, loss_of).look(task, logits[rows].detach(), known[rows], index[rows], step.clock.step)
            total = global_sum(weight.sum())
            loss = global_sum(torch.where(weight > 0, each * weight, 0.0).sum())
            if total > 0:
                losses[name] = loss / total
        return losses

    def _weights(self, step: Step, task: str, asked: Tensor | None = None) -> Tensor:
        """(B,) weight of each study in the loss of a task, 0 where it is not labelled or not asked."""
        targets, index = step.batch.targets[task], step.batch.index
        labelled = torch.isfinite(targets) if asked is None else torch.isfinite(targets) & asked
        weight = labelled.float()
        if task in self.class_weights:
            of_class = self.class_weights[task].to(targets.device)
            weight = weight * of_class[torch.where(labelled, targets, 0.0).long()]
        if task in self.study_weights and index is not None:
            of_study = self.study_weights[task].to(targets.device)
            weight = weight * torch.where(index >= 0, of_study[index.clamp(min=0)], 1.0)
        return weight

    def _mean(self, step: Step, losses: dict[str, Tensor], column: int | None = None) -> Tensor:
        """The mean over tasks; `column` is the modality that alone is seen."""
        like = next(iter(losses.values()))
        means = torch.stack([losses.get(task, torch.zeros_like(like)) for task in self.tasks])
        return step.mean_of_means(means, lambda other: self._counts(other, column))

    def _counts(self, step: Step, column: int | None) -> Tensor:
        """(tasks,) weight of the labelled studies of all ranks; of those that have the modality in `column`, or of all."""
        asked = None if column is None else step.present[:, column]
        none = step.present.new_zeros((), dtype=torch.float32)
        found = [self._weights(step, t, asked).sum() if t in step.batch.targets else none for t in self.tasks]
        return global_sum(torch.stack(found))


def hide_modalities(present: Tensor, key: Tensor, rate: float, seed: int = 0) -> Tensor:
    """(B, M) bool, the part of `present` (B, M) that stays: each modality is hidden at `rate`, never the last one.

    Drawn from each study's own key (B,), so that neither the batch nor the rank matters.
    """
    draw = uniform(key, present.shape[1], "modality dropout", seed=seed)
    kept = present & (draw >= rate)
    # Where all would go, the modality with the highest draw stays.
    best = torch.where(present, draw, -1.0).argmax(dim=1, keepdim=True)
    rescued = torch.zeros_like(present).scatter(1, best, True) & present
    return torch.where(kept.any(dim=1, keepdim=True), kept, rescued)


def chosen_tasks(model: MultimodalModel, tasks: Sequence[str] | None) -> dict[str, Task]:
    """Name -> task, of those asked for, or of all.

    Raises:
        ValueError: one that the model does not have, or none.
    """
    wanted = list(model.tasks) if tasks is None else list(tasks)
    missing = [task for task in wanted if task not in model.tasks]
    if missing or not wanted:
        raise ValueError(
            f"tasks {missing or wanted} are not among the model's {list(model.tasks)}; fix: add_task first"
        )
    return {task: model.tasks[task] for task in wanted}
