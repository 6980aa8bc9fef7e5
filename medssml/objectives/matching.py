"""Matching: do these modalities belong to one study, or was one of them taken from another?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.batch import Fused, made_up
from medssml.losses import all_gather_rows
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, others_than
from medssml.objectives.clock import Ramp
from medssml.objectives.draws import uniform
from medssml.objectives.step import Step


class Asked(NamedTuple):
    """own: (K, M) int64 the studies that are asked about, each made of itself, -1 for what is not there. studies: (K,) their
    positions. rows: (n,) positions of the candidates. barred: (K, n) bool, of whom they can be given nothing."""

    own: Tensor
    studies: Tensor
    rows: Tensor
    barred: Tensor

    def nearest(self, distance: Tensor) -> Tensor:
        """(K,) position of the candidate at the least `distance` (K, n)."""
        if len(self.studies) == 0:
            return self.studies
        return self.rows[distance.masked_fill(self.barred, torch.inf).argmin(1)]


class Matching(Objective):
    """loss = mean over studies with `anchor` and another modality of  [BCE(head(whole), 1) + BCE(head(mixed), 0)] / 2

    whole is the fusion of all that the study has; in mixed its `anchor`, such as the report, is that of another study of any
    rank, not of the same subject and not the same text. One fusion pass each; no encoder runs again. The fusion must let
    modalities see each other: what they say together is all that tells the two apart.

    [1] Lu et al., ViLBERT, NeurIPS 2019 (multi-modal alignment). [2] Li et al., Align before fuse (ALBEF), NeurIPS 2021
    (image-text matching; its hard negatives are in `ALBEF`).

    Args:
        model: the model.
        anchor: the modality that is exchanged.
        modalities: with which it is matched; all others by default.
        weight: in the sum of objectives.
    """

    anchored = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        anchor: str = "report",
        modalities: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        self.anchor, self.modalities = others_than(model, anchor, modalities, "Matching")
        self.head = nn.Linear(model.dim, 1)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the share of right answers."""
        own, other = self._sources(step)
        mixed = own.clone()
        mixed[:, step.model.modalities.index(self.anchor)] = other
        return self._match(step, own, mixed)

    def _sources(self, step: Step) -> tuple[Tensor, Tensor]:
        """(K, M) the studies that are asked about, each made of itself; (K,) whose anchor each is given instead.

        Each study has a place on a circle, drawn from its key, and is given the anchor of the next one that may be: what
        another order of the batch, or another rank, does not change.
        """
        asked = self._asked(step)
        place = uniform(all_gather_rows(step.batch.key), 1, "matching", seed=step.seed).squeeze(1)
        return asked.own, asked.nearest((place[asked.rows][None, :] - place[asked.studies][:, None]) % 1.0)

    def _match(self, step: Step, own: Tensor, mixed: Tensor) -> dict[str, Tensor] | None:
        """Whole studies `own` (K, M) are told from `mixed` ones (L, M): positions of the studies each modality is of."""
        if len(own) == 0:
            return None
        return self._told(step, self._made_up(step, torch.cat([own, mixed])), len(own))

    def _made_up(self, step: Step, source: Tensor) -> Fused:
        """The fusion of studies made of parts of others. Every rank sees the studies of all, and makes up the same ones."""
        encoded = {name: step.of_all(name) for name in (self.anchor, *self.modalities)}
        return step.model.fuse(*made_up(encoded, step.everyone.present, source, step.model.modalities))

    def _told(self, step: Step, fused: Fused, whole: int) -> dict[str, Tensor]:
        """Loss and share of right answers; the first `whole` studies are made of themselves."""
        logits = self.head(fused.pooled).squeeze(1)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        truth = (torch.arange(len(logits), device=logits.device) < whole).to(logits)
        loss = F.binary_cross_entropy_with_logits(logits, truth)
        return {
            "loss": loss * step.share(self._count),
            "accuracy": ((logits.detach() > 0) == truth.bool()).float().mean(),
        }

    def _asked(self, step: Step) -> Asked:
        """Who has the anchor and something else, and whose anchor each may be given instead."""
        everyone = step.everyone
        anchor = step.model.modalities.index(self.anchor)
        has = self._has(step)
        studies = (has[:, anchor] & (has.sum(1) > 1)).nonzero().squeeze(1)
        rows = everyone.rows(anchor)
        barred = everyone.alike(studies, rows, [anchor])
        some = ~barred.all(1)
        studies = studies[some]
        return Asked(torch.where(has[studies], studies[:, None], -1), studies, rows, barred[some])

    def _has(self, step: Step) -> Tensor:
        """(B, M) bool, what of each study is looked at."""
        used = [name in (self.anchor, *self.modalities) for name in step.model.modalities]
        return step.everyone.present & torch.tensor(used, device=step.present.device)

    def _count(self, step: Step) -> Tensor:
        return torch.tensor(2.0 * len(self._asked(step).studies), device=step.present.device)
