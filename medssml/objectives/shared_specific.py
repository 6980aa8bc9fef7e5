"""Shared and specific features: what makes the ones agree across modalities, and the others say where they come from."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.objectives.study_loss import wide


class SharedSpecific(Objective):
    """loss = align * mean over pairs of modalities of a study  a(s_m, s_n)  +  separate * mean over its modalities  b(r_m, s_m)

    with `shared` s and `specific` r that the fusion keeps:

        ShaSpec [1]  a = |s_m - s_n| / D                                   b = cross-entropy of m, said by a linear map of r_m
        DrFuse [2]   a = Jensen-Shannon divergence of sigmoid(s)           b = |cos(r_m, s_m)|

    Each study enters with what it has: a pair that is not there is no term, and nothing stands in for an absent modality.

    [1] Wang et al., Multi-modal learning with missing modality via shared-specific feature modelling, CVPR 2023.
    [2] Yao et al., DrFuse: learning disentangled representation for clinical multi-modal fusion with missing modality and modal
    inconsistency, AAAI 2024.

    Args:
        model: whose fusion keeps `shared` and `specific`.
        alignment: a, "l1" or "jsd". separation: b, "domain" or "cosine".
        align, separate: of the two terms; 0.1 and 0.02 as in [1]. [2] has 1 for both.
        weight: in the sum of objectives.

    Raises:
        ValueError: another name, or a fusion that keeps neither.
    """

    across = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        alignment: Literal["l1", "jsd"] = "l1",
        separation: Literal["domain", "cosine"] = "domain",
        align: float = 0.1,
        separate: float = 0.02,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if alignment not in ("l1", "jsd") or separation not in ("domain", "cosine"):
            raise ValueError(
                f"SharedSpecific: alignment {alignment!r}, separation {separation!r}; accepted: l1 or jsd, domain or cosine"
            )
        if not {"shared", "specific"} <= set(model.fusion.keeps):
            kind = type(model.fusion).__name__
            raise ValueError(f"{kind} keeps no shared and specific features; fix: fusion: SharedSpecificFusion")
        self.alignment, self.separation = alignment, separation
        self.align, self.separate = align, separate
        self.classifier = nn.Linear(model.dim, len(model.modalities)) if separation == "domain" else None

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and both terms."""
        pairs, single = self._pairs(step), self._single(step)
        if single == 0:
            return None
        shared, specific = (wide(step.fused.extra[name]) for name in ("shared", "specific"))
        aligned = global_sum(self._aligned(shared, step.present)) / pairs.clamp(min=1)
        separated = global_sum(self._separated(shared, specific, step.present)) / single
        loss = self.align * aligned * step.share(self._pairs) + self.separate * separated * step.share(self._single)
        return {"loss": loss, "alignment": aligned.detach(), "separation": separated.detach()}

    def _aligned(self, shared: Tensor, present: Tensor) -> Tensor:
        """() sum of a over the pairs of modalities of this rank's studies."""
        total = shared.new_zeros(())
        for m, n in combinations(range(present.shape[1]), 2):
            both = present[:, m] & present[:, n]
            one, other = shared[both, m], shared[both, n]
            apart = (one - other).abs() if self.alignment == "l1" else _jensen_shannon(one.sigmoid(), other.sigmoid())
            total = total + apart.mean(1).sum()
        return total

    def _separated(self, shared: Tensor, specific: Tensor, present: Tensor) -> Tensor:
        """() sum of b over the modalities of this rank's studies."""
        own = specific[present]
        if self.classifier is None:
            return F.cosine_similarity(own, shared[present], dim=1).abs().sum()
        whose = torch.arange(present.shape[1], device=present.device).expand_as(present)[present]
        return F.cross_entropy(wide(self.classifier(own)), whose, reduction="sum")

    def _pairs(self, step: Step) -> Tensor:
        """() pairs of modalities of the studies of all ranks."""
        count = step.present.sum(1)
        return global_sum((count * (count - 1) // 2).sum())

    def _single(self, step: Step) -> Tensor:
        """() modalities of the studies of all ranks."""
        return global_sum(step.present.sum())


def _jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Divergence, in nats, of Bernoulli distributions p and q, number by number: 0 for equal ones, log 2 at most."""

    def entropy(x: Tensor) -> Tensor:
        return -(torch.special.xlogy(x, x) + torch.special.xlogy(1 - x, 1 - x))

    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
