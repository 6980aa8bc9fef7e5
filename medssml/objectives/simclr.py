"""SimCLR: two looks at one study find each other among the looks at others, within each modality."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medssml.losses import nt_xent
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen, mean_of_terms
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.spaces import SharedSpace


class SimCLR(Objective):
    """loss = mean over the looks of  -log exp(cos(z, z') / t) / sum over all other looks of exp(cos(z, .) / t)

    z and z' are the projected pooled vectors of two looks at the same modality of a study, augmented one by one; the looks
    at all other studies of the batch, on all ranks, are the negatives, but for studies of one subject and identical inputs.
    Every look of every modality counts the same.

    [1] Chen, Kornblith, Norouzi, Hinton, A simple framework for contrastive learning of visual representations, ICML 2020.

    Args:
        model: the model.
        modalities: of which; all by default. One whose transforms draw nothing learns nothing.
        dim: of the projection. temperature: t; 0.1 as in the paper's tables for ImageNet.
        batch_norm: of the vectors before they are projected, as in the paper's heads; of all modalities or of those named.
        weight: in the sum of objectives.
    """

    views = 2

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        dim: int = 128,
        temperature: float = 0.1,
        batch_norm: bool | Sequence[str] = True,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; expected a positive number")
        self.temperature = temperature
        self.space = SharedSpace(model.dim, dim, chosen(model, modalities, "SimCLR"), batch_norm)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and per modality the share of looks whose nearest is the other look."""
        first, second = step.views[:2]
        found = {}
        for name in self.space.modalities:
            # Both looks in one pass of the head, so that they share its batch statistics.
            pooled = torch.cat([first.pooled_of_all(name), second.pooled_of_all(name)])
            a, b = self.space(name, pooled).chunk(2)
            found[name] = nt_xent(a, b, scale=1 / self.temperature, exclude=step.alike(name))

        return mean_of_terms(found, step, self._count)

    def _count(self, step: Step) -> Tensor:
        alike = [step.alike(name) for name in self.space.modalities]
        return torch.stack([2 * (~part).any(1).sum() for part in alike]).sum()
