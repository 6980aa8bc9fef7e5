"""Modality dropout: what remains of a study should say which study it is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.losses import all_gather_rows, count_terms, info_nce
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, refuse_single
from medssml.objectives.clock import Ramp
from medssml.objectives.contrast import LogitScale
from medssml.objectives.draws import uniform
from medssml.objectives.step import Step
from medssml.spaces import ProjectionHead


class ModalityDropoutConsistency(Objective):
    """The fused vector of a part of a study finds that of the whole among those of other studies.

        loss = InfoNCE(head(fuse(part)), stop_gradient(head(fuse(whole))))

    over the studies with two modalities or more; the wholes of all other studies are candidates. The pull goes from the
    part to the whole only (a target that moved towards the poorer input would forget what only the richer one shows),
    and the other studies keep the vectors apart, so that all being equal is the worst answer and not the best:
    no collapse, without a momentum copy or a variance term. Studies of one subject, and studies that share an
    identical input among the modalities of the part, are not each other's negatives.

    Args:
        model: the model.
        p: with which probability each present modality is left out; at least one is left out and at least one stays.
        dim: of the space of the contrast.
        temperature: at the start; trained, within [0.01, 1].
        weight: in the sum of objectives.
    """

    across = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        p: float = 0.5,
        dim: int = 128,
        temperature: float = 0.1,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        refuse_single(model, "ModalityDropoutConsistency")
        if not 0 < p < 1:
            raise ValueError(f"p is {p}; expected a probability between 0 and 1")
        self.p = p
        self.head = ProjectionHead(model.dim, dim)
        self.scale = LogitScale(temperature)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, temperature, and the share of studies whose part is nearest to its own whole."""
        # The part of each study; one of a single modality stays whole and is only a candidate.
        within = self._part(step)
        part = self._project(step.fuse(step.encoded, within).pooled)
        whole = self._project(step.fused.pooled).detach()

        # All ranks see all studies.
        part, whole = all_gather_rows(part), all_gather_rows(whole)
        match, exclude = self._masks(step, within)
        scale = self.scale()
        found = info_nce(part, whole, scale=scale, match=match, exclude=exclude)
        if found.terms == 0:
            return None
        return {
            "loss": found.total / found.terms * step.share(self._count),
            "accuracy": found.correct / found.terms,
            "temperature": 1 / scale.detach(),
        }

    def _project(self, pooled: Tensor) -> Tensor:
        projected = self.head(pooled)
        return F.normalize(projected.to(torch.promote_types(projected.dtype, torch.float32)), dim=1)

    def _part(self, step: Step) -> Tensor:
        """(B, M) bool, what the part of each study has."""
        return reduced_presence(step.present, step.batch.key, self.p, seed=step.seed)

    def _masks(self, step: Step, within: Tensor) -> tuple[Tensor, Tensor]:
        """(B, B) bool each: which part and whole are one study of several modalities, and which are no negatives."""
        everyone = all_gather_rows(within.long()).bool()
        return torch.diag(step.everyone.present.sum(1) > 1), self._alike(step, everyone)

    def _count(self, step: Step) -> Tensor:
        return count_terms(*self._masks(step, self._part(step)))

    def _alike(self, step: Step, within: Tensor) -> Tensor:
        """(B, B) bool: part i and whole j are of one subject or share an input of part i; or either is empty."""
        every = torch.arange(len(within), device=within.device)
        something = step.everyone.present.any(1)
        found = step.everyone.alike(every, every, ()) | ~(something[:, None] & something[None, :])
        for column in range(within.shape[1]):
            found = found | (step.everyone.alike(every, every, [column]) & within[:, column][:, None])
        return found


def reduced_presence(present: Tensor, keys: Tensor, p: float, *, seed: int = 0) -> Tensor:
    """(B, M) bool: of each study with two modalities or more, a part that is neither empty nor the whole.

    Each modality is left out where its own number falls below p; if that would leave all of them out the largest
    number stays, if none the smallest goes. A study of one modality stays as it is.

    Args:
        present: (B, M) bool. keys: (B,) int64, one seed per study. p: in (0, 1).
    """
    noise = uniform(keys, present.shape[1], "modality_dropout", seed=seed)
    several = present.sum(1, keepdim=True) > 1
    largest = F.one_hot(noise.masked_fill(~present, -1.0).argmax(1), present.shape[1]).bool()
    smallest = F.one_hot(noise.masked_fill(~present, 2.0).argmin(1), present.shape[1]).bool()
    kept = ((noise >= p) | largest) & ~smallest
    return torch.where(several, present & kept, present)
