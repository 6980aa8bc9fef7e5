"""Feature reconstruction: from the joint vector of a study, the features of each modality that it was made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.spaces import ProjectionHead


class FeatureReconstruction(Objective):
    """loss = mean over modalities of the mean over studies of  |D_m(fusion of all that the study has) - y_m|^2 / D

    y_m is the pooled vector of modality m, normalised over its features and without gradient, so that it cannot be made easy.
    The joint vector must hold what each modality said: the generative part of ConCluGen.

    [1] Halawa et al., Multi-task multi-modal self-supervised learning for facial expression recognition, CVPR workshops 2024.

    Args:
        model: the model.
        modalities: that are asked for; all by default.
        weight: in the sum of objectives.
    """

    def __init__(
        self, model: MultimodalModel, *, modalities: Sequence[str] | None = None, weight: float | Ramp = 1.0
    ) -> None:
        super().__init__(model, weight=weight)
        names = chosen(model, modalities, "FeatureReconstruction")
        self.decoders = nn.ModuleDict({name: ProjectionHead(model.dim, model.dim) for name in names})

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the loss of each modality."""
        errors = [global_sum(self._error(step, name)) for name in self.decoders]
        counts = self._count(step)
        if not bool((counts > 0).any()):
            return None
        means = torch.stack(errors) / counts.clamp(min=1)
        logged = zip(self.decoders, means.detach(), counts, strict=True)
        return {
            "loss": step.mean_of_means(means, self._count),
            **{f"loss_{name}": mean for name, mean, count in logged if count > 0},
        }

    def _error(self, step: Step, name: str) -> Tensor:
        """The sum over this rank's studies that have the modality."""
        dtype = torch.promote_types(next(self.parameters()).dtype, torch.float32)
        if name not in step.encoded:
            return step.present.new_zeros((), dtype=dtype)
        feature = step.encoded[name].pooled.detach().to(dtype)
        target = F.layer_norm(feature, feature.shape[-1:])
        found = self.decoders[name](step.fused.pooled[step.batch.rows(name)])
        return (found.to(dtype) - target).square().mean(1).sum()

    def _count(self, step: Step) -> Tensor:
        return global_sum(torch.stack([step.present[:, step.batch.column(name)].sum() for name in self.decoders]))
