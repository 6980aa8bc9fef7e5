"""Cyclic translation: from one modality's embedding another's, and from what was made of it the first again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.objectives.clock import Ramp
from medssml.objectives.directions import all_directions, count_of_both, of_both, restricted_directions
from medssml.objectives.step import Step
from medssml.spaces import ProjectionHead


class CyclicTranslation(Objective):
    """loss = mean over directions s -> t and studies that have both of  a * |F(x_s) - y_t|^2 / D + b * |G(F(x_s)) - y_s|^2 / D

    x are the student's pooled vectors, y the same normalised over their features and without gradient; F translates, G
    translates back what F made. x_s, which had to hold what t shows, stands for both where t is absent; the paper's third
    term, the loss of the task on it, is `Supervised` beside this objective. Every study of every direction counts the same.
    The paper translates sequences; here the pooled vectors of any two modalities are translated.

    [1] Pham et al., Found in translation: learning robust joint representations by cyclic translations between modalities,
    AAAI 2019 (MCTN).

    Args:
        model: the model.
        directions: such as ["report->ct"], from the source, which is there when the model is used, to the target; all by default.
        translation, cycle: a, b; equal, as in the reference code, whose 0.01 beside the task is `weight` here.
        weight: in the sum of objectives.

    Raises:
        ValueError: a direction that is not known; shares below 0.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        directions: Sequence[str] | None = None,
        translation: float = 1.0,
        cycle: float = 1.0,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if min(translation, cycle) < 0:
            raise ValueError(f"CyclicTranslation: translation {translation}, cycle {cycle}; fix: none below 0")
        self.translation, self.cycle = translation, cycle
        self.directions = all_directions(model, directions, "CyclicTranslation")
        names = ["->".join(direction) for direction in self.directions]
        self.there = nn.ModuleDict({name: ProjectionHead(model.dim, model.dim) for name in names})
        self.back = nn.ModuleDict({name: ProjectionHead(model.dim, model.dim) for name in names})

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the two errors; 1 is that of an answer that knows nothing."""
        count = self._count(step)
        if count == 0:
            return None
        there, back = global_sum(torch.stack(self._errors(step))) / count
        loss = (self.translation * there + self.cycle * back) * step.share(self._count)
        return {"loss": loss, "translation": there.detach(), "cycle": back.detach()}

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`."""
        return restricted_directions(arguments, left)

    def _errors(self, step: Step) -> tuple[Tensor, Tensor]:
        """This rank's sums of the errors of the translation and of the way back."""
        like = next(self.parameters())
        there = back = like.new_zeros((), dtype=torch.promote_types(like.dtype, torch.float32))
        for direction in self.directions:
            both = of_both(step, step, direction)
            if both is not None:
                name, (source, target) = "->".join(direction), both
                made = self.there[name](source)
                there = there + translation_error(made, target).sum()
                back = back + translation_error(self.back[name](made), source).sum()
        return there, back

    def _count(self, step: Step) -> Tensor:
        return count_of_both(step, self.directions)


def translation_error(made: Tensor, truth: Tensor) -> Tensor:
    """(n,) mean square over features of made (n, D) less the truth (n, D), normalised over its features and without gradient."""
    wide = torch.promote_types(made.dtype, torch.float32)
    truth = F.layer_norm(truth.detach().to(wide), truth.shape[1:])
    return (made.to(wide) - truth).square().mean(1)
