"""Matching: do these modalities belong to one study, or was one of them taken from another?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.batch import made_up
from medssml.config import LeftOut
from medssml.losses import all_gather_rows
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Ramp
from medssml.objectives.draws import uniform
from medssml.objectives.step import Step


class Matching(Objective):
    """loss = mean over studies with `anchor` and another modality of  [BCE(head(whole), 1) + BCE(head(mixed), 0)] / 2

    whole is the fusion of all that the study has; in mixed its `anchor`, such as the report, is that of another study of any
    rank, not of the same subject and not the same text. One fusion pass each; no encoder runs again. The fusion must let
    modalities see each other: what they say together is all that tells the two apart.

    [1] Lu et al., ViLBERT, NeurIPS 2019 (multi-modal alignment). [2] Li et al., Align before fuse (ALBEF), NeurIPS 2021
    (image-text matching; its hard negatives are not used here).

    Args:
        model: the model.
        anchor: the modality that is exchanged.
        modalities: with which it is matched; all others by default.
        weight: in the sum of objectives.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        anchor: str = "report",
        modalities: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        (self.anchor,) = chosen(model, [anchor], "Matching: anchor")
        others = [name for name in model.modalities if name != anchor] if modalities is None else list(modalities)
        self.modalities = chosen(model, others, "Matching")
        if anchor in self.modalities:
            raise ValueError(f"Matching: {anchor} cannot be matched with itself; name other modalities")
        self.head = nn.Linear(model.dim, 1)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the share of right answers."""
        # Every rank sees the studies of all ranks, and makes up the same ones.
        encoded = {name: step.of_all(name) for name in (self.anchor, *self.modalities)}
        source, other = self._sources(step)
        if len(source) == 0:
            return None
        mixed = source.clone()
        mixed[:, step.model.modalities.index(self.anchor)] = other

        parts, within = made_up(encoded, step.everyone.present, torch.cat([source, mixed]), step.model.modalities)
        logits = self.head(step.model.fuse(parts, within).pooled).squeeze(1)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        truth = torch.cat([torch.ones(len(source)), torch.zeros(len(source))]).to(logits)
        loss = F.binary_cross_entropy_with_logits(logits, truth)
        return {
            "loss": loss * step.share(self._count),
            "accuracy": ((logits.detach() > 0) == truth.bool()).float().mean(),
        }

    def _sources(self, step: Step) -> tuple[Tensor, Tensor]:
        """(K, M) the studies that are asked about, each made of itself; (K,) whose anchor each is given instead.

        Each study has a place on a circle, drawn from its key, and is given the anchor of the next one that may be: what
        another order of the batch, or another rank, does not change.
        """
        everyone, columns = step.everyone, step.model.modalities
        anchor = columns.index(self.anchor)
        used = torch.tensor(
            [name in (self.anchor, *self.modalities) for name in columns], device=everyone.present.device
        )
        has = everyone.present & used
        asked = (has[:, anchor] & (has.sum(1) > 1)).nonzero().squeeze(1)
        rows = everyone.rows(anchor)

        place = uniform(all_gather_rows(step.batch.key), 1, "matching", seed=step.seed).squeeze(1)
        ahead = (place[rows][None, :] - place[asked][:, None]) % 1.0
        ahead = ahead.masked_fill(everyone.alike(asked, rows, [anchor]), torch.inf)
        nearest, which = ahead.min(1) if len(rows) and len(asked) else (ahead.new_zeros(0), asked.new_zeros(0))
        there = torch.isfinite(nearest)
        asked = asked[there] if len(nearest) else asked[:0]
        own = torch.where(has[asked], asked[:, None], -1)
        return own, rows[which[there]] if len(asked) else asked

    def _count(self, step: Step) -> Tensor:
        return torch.tensor(2.0 * len(self._sources(step)[0]), device=step.present.device)

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`."""
        anchor = arguments.get("anchor", "report")
        if anchor not in left or len(left) < 2:
            raise LeftOut(f"needs {anchor} and another modality")
        return super().restricted_to(arguments, left)
