"""Pseudo-labels: what the model is sure of about an unlabelled study becomes the label of the same study seen otherwise."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from medssml.batch import Fused
from medssml.config import LeftOut
from medssml.losses import global_sum
from medssml.model import MultimodalModel, Task
from medssml.objectives.base import Objective
from medssml.objectives.clock import Ramp
from medssml.objectives.dropout_consistency import reduced_presence
from medssml.objectives.step import Step
from medssml.objectives.study_loss import CrossEntropy, log_probabilities, wide
from medssml.objectives.supervised import chosen_tasks

Look = Literal["part", "augmented", "both"]


class PseudoLabels(Objective):
    """loss = mean over tasks of the mean over unlabelled studies of  [max_k q_k >= threshold] CE(argmax_k q_k, strong)

    The weak view is the study with all that it has, q what the model answers to it, without gradient. The strong view is the
    same study seen in part, a subset of its modalities drawn from its own key; or a second look at all of it, augmented by
    itself; or both (FixMatch [1]). A study counts for the tasks that it has no label of, so that no known label is replaced.
    As in the paper the mean is over all of them and not over the confident ones: the loss grows as the model becomes sure.

    Where one class is rare a model is seldom sure of it, and pseudo-labels make it rarer: look at "positive/TASK" in history.csv,
    the share of confident studies of a binary task that are answered with the positive class.

    [1] Sohn et al., FixMatch: simplifying semi-supervised learning with consistency and confidence, NeurIPS 2020.

    Args:
        model: has a head for every task.
        tasks: whose answers count; all tasks of classes by default.
        threshold: the least probability of a class that is taken for a label; 0.95 in the paper.
        look: the strong view: "part", of studies with two modalities or more, costs one pass of the fusion; "augmented", the
            second look at all that a study has, and "both", a part of that look, cost one pass of the encoders as well.
        p: with which probability each present modality is left out of the part.
        weight: in the sum of objectives; a `Ramp` from 0 lets the labels teach first.

    Raises:
        ValueError: a task that the model does not have, or that is a number; a number or a look out of range.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        tasks: Sequence[str] | None = None,
        threshold: float = 0.95,
        look: Look = "part",
        p: float = 0.5,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if not 0 < threshold < 1 or not 0 < p < 1:
            raise ValueError(f"PseudoLabels: threshold {threshold}, p {p}; fix: both above 0 and below 1")
        if look not in get_args(Look):
            raise ValueError(f"look is {look!r}; accepted: {', '.join(get_args(Look))}")
        if look == "part" and len(model.modalities) < 2:
            raise ValueError("PseudoLabels: a model of one modality sees no part; fix: look: augmented")
        self.tasks = _of_classes(chosen_tasks(model, tasks), named=tasks is not None)
        self.threshold, self.look, self.p = threshold, look, p
        self.views = 1 if look == "part" else 2
        self.cross_entropy = CrossEntropy()

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`; of one modality there is no part."""
        if arguments.get("look", "part") == "part" and len(left) < 2:
            raise LeftOut("needs two modalities, or look: augmented")
        return super().restricted_to(arguments, left)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss; for every task with an unlabelled study "confident/TASK", their share, and of binary ones "positive/TASK"."""
        counts = self._counts(step)
        if not bool(counts.any()):
            return None

        # The whole study says what its label is; the same study seen otherwise learns it.
        weak, strong = step.fused, self._strong(step)
        means, logged = [], {}
        for (name, task), count in zip(self.tasks.items(), counts, strict=True):
            answered, sure = self._labels(step, name, weak)
            of_each = self.cross_entropy(task, wide(step.model.heads[name](strong)), answered)
            means.append(global_sum(torch.where(sure, of_each, 0.0).sum()) / count.clamp(min=1))
            confident = global_sum(sure.sum())
            if count > 0:
                logged[f"confident/{name}"] = confident / count
            if task.kind == "binary" and confident > 0:
                logged[f"positive/{name}"] = global_sum((sure & (answered == 1)).sum()) / confident
        return {"loss": step.mean_of_means(torch.stack(means), self._counts), **logged}

    @torch.no_grad()
    def _labels(self, step: Step, task: str, weak: Fused) -> tuple[Tensor, Tensor]:
        """(B,) the likeliest class of each study, and (B,) bool, which of them are learned."""
        logits = wide(step.model.heads[task](weak)).detach()
        likeliest = log_probabilities(self.tasks[task], logits).exp().max(1)
        sure = (likeliest.values >= self.threshold) & self._unlabelled(step, task)
        return likeliest.indices.to(logits.dtype), sure

    def _strong(self, step: Step) -> Fused:
        """The strong view of every study; one of a single modality stays whole."""
        seen = step.views[self.views - 1]
        if self.look == "augmented":
            return seen.fused
        return seen.fuse(seen.encoded, reduced_presence(seen.present, seen.batch.key, self.p, seed=seen.seed))

    def _unlabelled(self, step: Step, task: str) -> Tensor:
        """(B,) bool: the studies that have a strong view and no label of the task."""
        seen = step.present.sum(1) >= (2 if self.look == "part" else 1)
        return seen & ~torch.isfinite(step.batch.targets[task]) if task in step.batch.targets else seen

    def _counts(self, step: Step) -> Tensor:
        """(tasks,) unlabelled studies of all ranks."""
        return global_sum(torch.stack([self._unlabelled(step, name).sum() for name in self.tasks]))


def _of_classes(tasks: dict[str, Task], *, named: bool) -> dict[str, Task]:
    """The tasks that have classes; one that was named and has none is refused."""
    numbers = [name for name, task in tasks.items() if task.kind == "regression"]
    if numbers and (named or len(numbers) == len(tasks)):
        raise ValueError(
            f"PseudoLabels is for classes, and task {numbers[0]!r} is a number; fix: leave it out of tasks"
        )
    return {name: task for name, task in tasks.items() if name not in numbers}
