"""Contrast across modalities: the modalities of one study find each other among those of other studies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.losses import InfoNCE, count_paired, info_nce
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.objectives.clock import Ramp
from medssml.objectives.pairs import Pair, modalities_of, pairs_of, sides_of
from medssml.objectives.step import Step
from medssml.spaces import SharedSpace

#: Bounds of 1 / temperature, those of CLIP.
MIN_SCALE, MAX_SCALE = 1.0, 100.0


class LogitScale(nn.Module):
    """1 / temperature, learned as a logarithm and kept within [1, 100] (Radford et al. 2021)."""

    def __init__(self, temperature: float, *, learned: bool = True) -> None:
        super().__init__()
        if not 1 / MAX_SCALE <= temperature <= 1 / MIN_SCALE:
            raise ValueError(f"temperature {temperature} is outside [{1 / MAX_SCALE}, {1 / MIN_SCALE}]")
        value = torch.tensor(-math.log(temperature))
        self.register_parameter("log", nn.Parameter(value)) if learned else self.register_buffer("log", value)
        self.log: Tensor

    def forward(self) -> Tensor:
        """() 1 / temperature."""
        if self.training:
            # The value itself, not only what is returned: beyond the bound a clamp's gradient is 0 and it would stay.
            with torch.no_grad():
                self.log.clamp_(math.log(MIN_SCALE), math.log(MAX_SCALE))
        return self.log.clamp(math.log(MIN_SCALE), math.log(MAX_SCALE)).exp()


class CrossModalContrast(Objective):
    """Symmetric InfoNCE over all pairs of modalities that studies have, for any number of modalities.

        loss = sum over pairs (m, n) of the InfoNCE terms of m -> n and n -> m  /  number of terms

    A study's modality m looks for the same study's n among all n of the batch, those of studies without m included.
    Every term counts the same, so a pair of modalities weighs by how many studies have both: a pair that two studies
    have, in which chance is right half of the time, cannot drown one that thirty have. Studies of one subject, and
    studies that share an identical input in m or n ("No acute findings."), are not each other's negatives.

    References: [1] Radford et al. 2021 (CLIP). [2] Zhang et al. 2022 (ConVIRT), for radiographs and reports.

    Args:
        model: the model.
        dim: of the space of the contrast.
        temperature: at the start. learn_temperature: whether it is trained, within [0.01, 1].
        pairs: such as ["ct+report", "xray+report"]; all pairs by default.
        share: of the terms in which the first of a pair looks for the second; 0.75 with ["ct+report"] is ConVIRT's lambda.
        batch_norm: normalise the embeddings of all modalities, or of those named, over all ranks before they are
            projected (`GatheredNorm`); not where a batch holds few of a modality.
        weight: in the sum of objectives.
    """

    across = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        dim: int = 128,
        temperature: float = 0.07,
        learn_temperature: bool = True,
        pairs: Sequence[str] | None = None,
        share: float = 0.5,
        batch_norm: bool | Sequence[str] = True,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if not 0 < share < 1:
            raise ValueError(f"share is {share}; expected a number between 0 and 1")
        self.share = share
        self.pairs = pairs_of(model.modalities, pairs, "CrossModalContrast")
        self.space = SharedSpace(model.dim, dim, modalities_of(self.pairs, model.modalities), batch_norm)
        self.scale = LogitScale(temperature, learned=learn_temperature)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, temperature, and per pair the share of studies whose match is the nearest candidate."""
        return self._contrasted(step, self._embeddings(step))

    def kept(self) -> dict[str, nn.Module]:
        """The space of the contrast, in which a modality finds another."""
        return {"space": self.space}

    def _embeddings(self, step: Step) -> dict[str, Tensor]:
        """Modality -> unit vectors in the space, of all ranks."""
        # Every rank gathers and projects every modality, in the same order, also one that it has no rows of.
        return {name: self.space(name, step.pooled_of_all(name)) for name in self.space.modalities}

    def _contrasted(self, step: Step, embeddings: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """See `forward`."""
        scale = self.scale()
        terms = {pair: self._contrast(step, embeddings, pair, scale) for pair in self.pairs}
        count = torch.stack([term.terms for term in terms.values()]).sum()
        if count == 0:
            return None

        mean = torch.stack([term.total for term in terms.values()]).sum() / count
        out = {"loss": mean * step.share(self._count)}
        out["temperature"] = 1 / scale.detach()
        for (m, n), term in terms.items():
            if term.terms > 0:
                out[f"accuracy_{m}+{n}"] = term.correct / term.terms
                out[f"loss_{m}+{n}"] = term.total.detach() / term.terms
        return out

    def _contrast(self, step: Step, embeddings: dict[str, Tensor], pair: Pair, scale: Tensor) -> InfoNCE:
        a, b = (embeddings[name] for name in pair)
        sides = sides_of(step, pair)
        return info_nce(a, b, scale=scale, match=sides.partner, exclude=sides.alike, share=self.share)

    def _count(self, step: Step) -> Tensor:
        sides = [sides_of(step, pair) for pair in self.pairs]
        return torch.stack([count_paired(side.partner, side.alike, self.share) for side in sides]).sum()
