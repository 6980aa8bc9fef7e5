"""Distillation from all that a study has to a part of it: what the whole answers, the part should answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.batch import Fused
from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, refuse_single
from medssml.objectives.clock import Ramp
from medssml.objectives.divergence import tempered_divergence
from medssml.objectives.dropout_consistency import reduced_presence
from medssml.objectives.step import Step
from medssml.objectives.study_loss import wide
from medssml.objectives.supervised import chosen_tasks


class SubsetDistillation(Objective):
    """loss = mean over tasks of the mean over studies of  T^2 KL(softmax(whole / T) | softmax(part / T))
               + features * mean over studies of  |W part - norm(whole)|^2 / D

    over the studies with two modalities or more, labelled or not. The whole is the study with all that it has, and a fixed
    target: the gradient goes through the part alone, so that the richer answer is never pulled towards the poorer one. The part
    is drawn for each study from its own key, neither empty nor the whole. In the first term whole and part are the
    answers of the model itself [1], a regression's in standard deviations; in the second they are the fused vectors, norm has
    mean 0 and variance 1 over the features, and W is a linear map that is thrown away [2].

    [1] Hinton, Vinyals, Dean, Distilling the knowledge in a neural network, 2015.
    [2] Romero et al., FitNets: hints for thin deep nets, ICLR 2015.

    Args:
        model: of two modalities or more.
        tasks: whose answers are distilled; all of the model's by default, and none where it has none.
        temperature: T; 4 as in common use.
        p: with which probability each present modality is left out of the part.
        features: of the second term.
        weight: in the sum of objectives.

    Raises:
        ValueError: a number out of range, a task that the model does not have, or nothing to distil.
    """

    across = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        tasks: Sequence[str] | None = None,
        temperature: float = 4.0,
        p: float = 0.5,
        features: float = 0.0,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        refuse_single(model, "SubsetDistillation")
        if not 0 < p < 1 or not temperature > 0 or not features >= 0:
            raise ValueError(
                f"SubsetDistillation: p {p}, temperature {temperature}, features {features}; fix: p between 0 and 1, a "
                f"positive temperature, features of 0 or more"
            )
        self.tasks = chosen_tasks(model, tasks) if tasks is not None or model.tasks else {}
        if not self.tasks and features == 0:
            raise ValueError("SubsetDistillation: the model has no task; fix: features above 0, or a model with heads")
        self.temperature, self.p, self.features = temperature, p, features
        self.regressor = nn.Linear(model.dim, model.dim) if features > 0 else None

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, "loss/TASK" of every task, and "features"."""
        count = self._count(step)
        if count == 0:
            return None

        # The part of each study answers, and all of it.
        within = reduced_presence(step.present, step.batch.key, self.p, seed=step.seed)
        part, whole = step.fuse(step.encoded, within), step.fused
        rows = step.present.sum(1) > 1
        terms = {f"loss/{name}": self._answers(step, name, part, whole)[rows] for name in self.tasks}
        loss = torch.zeros((), device=step.present.device)
        means = {name: global_sum(each.sum()) / count for name, each in terms.items()}
        if means:
            loss = torch.stack(list(means.values())).mean()
        if self.regressor is not None:
            means["features"] = global_sum(_error(self.regressor(part.pooled), whole.pooled)[rows].sum()) / count
            loss = loss + self.features * means["features"]
        return {"loss": loss * step.share(self._count), **{name: mean.detach() for name, mean in means.items()}}

    def _answers(self, step: Step, task: str, part: Fused, whole: Fused) -> Tensor:
        """(B,) how far the part's answer lies from that of the whole."""
        head = step.model.heads[task]
        return tempered_divergence(self.tasks[task], wide(head(part)), wide(head(whole)).detach(), self.temperature)

    def _count(self, step: Step) -> Tensor:
        """() studies of all ranks with two modalities or more."""
        return global_sum((step.present.sum(1) > 1).sum())


def _error(found: Tensor, target: Tensor) -> Tensor:
    """(n,) mean square over the features of found (n, D) less the normalised target (n, D), which is fixed."""
    return (wide(found) - F.layer_norm(wide(target).detach(), target.shape[1:])).square().mean(1)
