"""UNITER: matching, and words that are carried to the regions of their own image more cheaply than to those of another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.batch import Fused
from medssml.losses.ipot import ipot
from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.matching import Matching
from medssml.objectives.step import Step


class UNITER(Matching):
    """loss = matching + alignment * ( sum of d(whole) - sum of d(mixed) ) / ( number of whole + number of mixed )

        d = min over plans T of sum over words t, regions r of T_tr (1 - cos(w_t, v_r))

    w and v are the tokens of the anchor and of another modality after the fusion; the plan carries the words, all of one weight,
    to the regions, all of one weight, and gets no gradient. Mixed studies have the anchor of another study (`Matching`). Where
    a study has several other modalities, each counts. Padding carries nothing.

    [1] Chen et al., UNITER: universal image-text representation learning, ECCV 2020: image-text matching and word-region
    alignment. Its masked modelling is `FusedMaskedLanguage` beside it.

    Args:
        model: the model, whose fusion reads and gives tokens.
        anchor: the modality with words, which is exchanged.
        modalities: with regions; all others by default.
        alignment: weight of the transport; 0.1 as in the paper.
        beta, iterations: of the transport, 0.5 and 50 as in the paper; see `medssml.losses.ipot.ipot`.
        weight: in the sum of objectives.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        anchor: str = "report",
        modalities: Sequence[str] | None = None,
        alignment: float = 0.1,
        beta: float = 0.5,
        iterations: int = 50,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, anchor=anchor, modalities=modalities, weight=weight)
        if model.fusion.reads != "tokens":
            kind = type(model.fusion).__name__
            raise ValueError(f"UNITER: {kind} reads pooled vectors; fix: tokens: all of a MaskedAttention")
        self.alignment, self.beta, self.iterations = alignment, beta, iterations

    def _match(self, step: Step, own: Tensor, mixed: Tensor) -> dict[str, Tensor] | None:
        """Matching, and the cost of carrying words to regions."""
        if len(own) == 0:
            return None
        source = torch.cat([own, mixed])
        fused = self._made_up(step, source)
        answer = self._told(step, fused, len(own))

        cost, pairs = self._carried(step, fused, source >= 0)
        distance = (cost[: len(own)].sum() - cost[len(own) :].sum()) / pairs.sum()
        answer["loss"] = answer["loss"] + self.alignment * distance * step.share(self._count)
        return answer | {"distance": distance.detach()}

    def _carried(self, step: Step, fused: Fused, within: Tensor) -> tuple[Tensor, Tensor]:
        """(K,) cost of each made-up study, summed over its other modalities, and (K,) how many these are."""
        rank = within.cumsum(0) - 1
        words = fused.parts[self.anchor]
        cost = words.tokens.new_zeros(len(within), dtype=torch.promote_types(words.tokens.dtype, torch.float32))
        pairs = cost.clone()
        for name in self.modalities:
            column = step.model.modalities.index(name)
            rows = within[:, column].nonzero().squeeze(1)
            if len(rows) == 0:
                continue
            regions = fused.parts[name]
            text = rank[rows, step.model.modalities.index(self.anchor)]
            w, v = (F.normalize(x.to(cost.dtype), dim=-1) for x in (words.tokens[text], regions.tokens))
            with torch.autocast(cost.device.type, enabled=False):
                apart = 1 - w @ v.mT
            plan = ipot(apart, words.mask[text], regions.mask, beta=self.beta, iterations=self.iterations)
            # What is not real is not carried, and may hold anything: 0 * NaN is NaN.
            carried = torch.where(plan > 0, plan * apart, 0.0).sum((1, 2))
            cost, pairs = cost.index_add(0, rows, carried), pairs.index_add(0, rows, torch.ones_like(carried))
        return cost, pairs
