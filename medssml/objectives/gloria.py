"""GLoRIA: a report finds its image by what each of its words sees there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.layers import attendable
from medssml.losses import InfoNCE, word_region_similarity
from medssml.losses.info_nce import count_paired, cross_entropy_terms
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, mean_of_terms, others_than
from medssml.objectives.clock import Ramp
from medssml.objectives.pairs import sides_of
from medssml.objectives.step import Step
from medssml.objectives.words import words_of_all


class GLoRIA(Objective):
    """loss = mean over studies and both directions of  -log softmax(scale * Z(i, j)) at j = i

        Z(i, j) = log sum over words t of report j of exp(match * cos(c_ijt, w_jt))
        c_ijt = sum over regions r of image i of a_ijtr v_ir,   a = softmax over r of (attend * softmax over t of v_ir . w_jt)

    The local half of GLoRIA; its global half is a `CrossModalContrast` beside it. Regions are the tokens of the image's encoder,
    words those of the report without [CLS] and [SEP]; what is padding is neither attended to nor counted. Computed with each
    modality that has a report in some study; every term counts the same. No negatives: studies of one subject, identical inputs.

    [1] Huang, Shen, Lungren, Yeung, GLoRIA: a multimodal global-local representation learning framework for label-efficient
    medical image recognition, ICCV 2021.

    Args:
        model: the model.
        anchor: the modality with words.
        modalities: with regions; all others by default.
        dim: of the space in which words and regions meet.
        attend, match, scale: 4, 5 and 10 as in the paper's code, there temp1, temp2 and temp3.
        weight: in the sum of objectives.
    """

    anchored = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        anchor: str = "report",
        modalities: Sequence[str] | None = None,
        dim: int = 128,
        attend: float = 4.0,
        match: float = 5.0,
        scale: float = 10.0,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        self.anchor, self.modalities = others_than(model, anchor, modalities, "GLoRIA")
        self.attend, self.match, self.scale = attend, match, scale
        self.heads = nn.ModuleDict({name: nn.Linear(model.dim, dim) for name in (anchor, *self.modalities)})

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and per modality the share of studies whose match is the nearest, both directions together."""
        words = words_of_all(step, self.anchor)
        w = self.heads[self.anchor](words.tokens)
        found = {name: self._contrast(step, name, w, words.mask) for name in self.modalities}
        return mean_of_terms(found, step, self._count)

    def _contrast(self, step: Step, name: str, words: Tensor, word_mask: Tensor) -> InfoNCE:
        regions = step.of_all(name)
        v = self.heads[name](regions.tokens)
        sides = sides_of(step, (name, self.anchor))
        logits = self.scale * word_region_similarity(
            v, words, attendable(regions.mask), attendable(word_mask), attend=self.attend, match=self.match
        )
        match, negative = sides.match, sides.negative
        both = cross_entropy_terms(logits, match, negative), cross_entropy_terms(logits.T, match.T, negative.T)
        return InfoNCE(*((x + y) / 2 for x, y in zip(*both, strict=True)))

    def _count(self, step: Step) -> Tensor:
        sides = [sides_of(step, (name, self.anchor)) for name in self.modalities]
        return torch.stack([count_paired(side.partner, side.alike) for side in sides]).sum()
