"""The penalty that a fusion has of its own, as an objective."""

from __future__ import annotations

import torch
from torch import Tensor

from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step


class FusionPenalty(Objective):
    """loss = what the fusion puts under `penalty` into `Fused.extra`; of `ChannelExchange` the L1 norm that exchanges channels.

    It is a sum over parameters and not over studies, the same for every batch.

    Args:
        model: whose fusion keeps a penalty.
        weight: in the sum of objectives; 2e-4 for channel exchange in segmentation, as published.

    Raises:
        ValueError: the fusion keeps none.
    """

    def __init__(self, model: MultimodalModel, *, weight: float | Ramp = 2e-4) -> None:
        super().__init__(model, weight=weight)
        if "penalty" not in model.fusion.keeps:
            kind = type(model.fusion).__name__
            raise ValueError(f"{kind} keeps no penalty; fix: ChannelExchange, or leave FusionPenalty out")

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """The loss; every batch of a step weighs the same."""
        penalty = step.fused.extra["penalty"]
        return {"loss": penalty * step.share(lambda other: torch.ones((), device=other.present.device))}
