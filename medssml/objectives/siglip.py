"""SigLIP: of every two modalities of two studies, are they of one study?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.losses import sigmoid_contrast
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, mean_of_terms
from medssml.objectives.clock import Ramp
from medssml.objectives.pairs import modalities_of, pairs_of, sides_of
from medssml.objectives.step import Step
from medssml.spaces import SharedSpace


class SigLIP(Objective):
    """loss = 1 / B * sum over i, j of  -log sigmoid(y_ij (t z_i . z_j + b)),   y_ij = 1 for i = j, else -1

    z_i and z_j are the projected vectors of two modalities of studies i and j, B is the number of studies that have both,
    and t and b are learned. Every pair of studies is a question of its own: no softmax over the batch, so that small batches
    lose less. The sums over all pairs of modalities are added before they are divided by the matches of all. A study with one
    of the two modalities is a negative of every other study. Studies of one subject, or with an identical input, are no term.

    [1] Zhai, Mustafa, Kolesnikov, Beyer, Sigmoid loss for language image pre-training, ICCV 2023, algorithm 1.

    Args:
        model: the model.
        dim: of the space of the contrast.
        scale, bias: t and b at the start, 10 and -10 as in the paper; t is trained as its logarithm.
        pairs: such as ["ct+report", "xray+report"]; all pairs by default.
        batch_norm: of the vectors before they are projected; see `CrossModalContrast`.
        weight: in the sum of objectives.
    """

    across = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        dim: int = 128,
        scale: float = 10.0,
        bias: float = -10.0,
        pairs: Sequence[str] | None = None,
        batch_norm: bool | Sequence[str] = True,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if not scale > 0:
            raise ValueError(f"scale is {scale}; expected a positive number")
        self.pairs = pairs_of(model.modalities, pairs, "SigLIP")
        self.space = SharedSpace(model.dim, dim, modalities_of(self.pairs, model.modalities), batch_norm)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, t, b, and per pair the share of studies whose match is the nearest candidate."""
        embeddings = {name: self.space(name, step.pooled_of_all(name)) for name in self.space.modalities}
        found = {}
        for a, b in self.pairs:
            sides = sides_of(step, (a, b))
            found[f"{a}+{b}"] = sigmoid_contrast(
                embeddings[a], embeddings[b],
                scale=self.log_scale.exp(), bias=self.bias, partner=sides.partner, exclude=sides.alike,
            )  # fmt: skip
        out = mean_of_terms(found, step, self._count)
        return None if out is None else out | {"scale": self.log_scale.detach().exp(), "bias": self.bias.detach()}

    def kept(self) -> dict[str, nn.Module]:
        """The space of the contrast, in which a modality finds another."""
        return {"space": self.space}

    def _count(self, step: Step) -> Tensor:
        return torch.stack([(sides_of(step, pair).partner >= 0).sum() for pair in self.pairs]).sum()
