"""Prediction of embeddings: from what one modality shows, what a teacher makes of another of the same study."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

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


class EmbeddingPrediction(Objective):
    """loss = mean over directions m -> n and studies that have both of  d(q_mn(x_m), y_n)

        d(q, y) = 2 - 2 cos(q, y)  ("cosine"),   or  |q - norm(y)|^2 / D  ("mse"; norm: mean 0, variance 1 over features)

    x_m is the student's pooled vector of modality m, q_mn a head of that direction, y_n what the teacher, a running mean of the
    model, makes of modality n, without gradient. Every study of every direction counts the same. There are no negatives:
    studies of one subject and identical inputs need no care. BYOL [1] with modalities in the place of looks; the targets of
    "mse" are normalised as those of [2].

    [1] Grill et al., Bootstrap your own latent: a new approach to self-supervised learning, NeurIPS 2020.
    [2] Assran et al., Self-supervised learning from images with a joint-embedding predictive architecture, CVPR 2023.

    Args:
        model: the model.
        directions: such as ["ct->report"]; all by default.
        distance: "cosine" or "mse".
        momentum: of the teacher; by default from 0.996 to 1 along a cosine, as in [1].
        weight: in the sum of objectives.

    Raises:
        ValueError: a direction or a distance that is not known.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        directions: Sequence[str] | None = None,
        distance: Literal["cosine", "mse"] = "cosine",
        momentum: float | Ramp | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if distance not in ("cosine", "mse"):
            raise ValueError(f"distance {distance!r}; accepted: cosine, mse")
        self.teacher = Ramp(0.996, 1.0, shape="cosine") if momentum is None else momentum
        self.distance = distance
        self.directions = all_directions(model, directions, "EmbeddingPrediction")
        self.heads = nn.ModuleDict({f"{m}->{n}": ProjectionHead(model.dim, model.dim) for m, n in self.directions})

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the mean cosine of prediction and target."""
        count = self._count(step)
        if count == 0:
            return None
        total, cosine = global_sum(torch.stack(self._sums(step)))
        return {"loss": total / count * step.share(self._count), "cosine": cosine.detach() / count}

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`."""
        return restricted_directions(arguments, left)

    def _sums(self, step: Step) -> tuple[Tensor, Tensor]:
        """This rank's sums of distances and of cosines."""
        like = next(self.parameters())
        total = cosine = like.new_zeros((), dtype=torch.promote_types(like.dtype, torch.float32))
        for direction in self.directions:
            both = of_both(step, step.teacher, direction)
            if both is not None:
                seen, target = both
                predicted = self.heads["->".join(direction)](seen).to(total.dtype)
                target = target.detach().to(total.dtype)
                cosines = F.cosine_similarity(predicted, target, dim=1)
                if self.distance == "mse":
                    error = (predicted - F.layer_norm(target, target.shape[1:])).square().mean(1)
                else:
                    error = 2 - 2 * cosines
                total, cosine = total + error.sum(), cosine + cosines.sum()
        return total, cosine

    def _count(self, step: Step) -> Tensor:
        return count_of_both(step, self.directions)
