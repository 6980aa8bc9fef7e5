"""BIOT: what is left of a recording, after tokens are dropped, finds the whole of it among others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.losses import InfoNCE, all_gather_rows
from medssml.losses.info_nce import cosine_logits, cross_entropy_terms
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, mean_of_terms
from medssml.objectives.clock import Ramp, ends
from medssml.objectives.masked_reconstruction import maskable, study_masking
from medssml.objectives.step import Step
from medssml.spaces import ProjectionHead


class BIOT(Objective):
    """loss = mean over studies of  -log exp(cos(z, p) / t) / sum over studies j of exp(cos(z, p_j) / t)

    z is the pooled vector of the whole input, p the prediction head on the pooled vector of the tokens that are left; both
    passes learn. One look is enough: what is hidden is the augmentation. Computed within each modality; every study of every
    modality counts the same. Studies of one subject, and identical inputs, are no negatives.

    [1] Yang, Westover, Sun, BIOT: biosignal transformer for cross-data learning in the wild, NeurIPS 2023. There a share of up to
    one half of the tokens, and of the channels, is drawn for each batch; here the share of tokens is fixed, and channels are left
    out by a transform (`RandDropChannelsd`).

    Args:
        model: the model.
        modalities: of which; all whose encoder can leave tokens out by default.
        mask_ratio: share of the tokens that are dropped.
        temperature: t; 0.2 as in the paper.
        weight: in the sum of objectives.

    Raises:
        ValueError: a modality whose encoder is no `MaskableEncoder`; a ratio or temperature out of bounds.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        mask_ratio: float | Ramp = 0.5,
        temperature: float = 0.2,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if not all(0 < end < 1 for end in ends(mask_ratio)) or not temperature > 0:
            raise ValueError(
                f"BIOT: mask_ratio {mask_ratio}, temperature {temperature}; fix: a share between 0 and 1, a positive number"
            )
        self.mask_ratio, self.temperature = mask_ratio, temperature
        names = maskable(model, modalities, "BIOT")
        self.predict = nn.ModuleDict({name: ProjectionHead(model.dim, model.dim) for name in names})

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and per modality the share of studies whose nearest part is their own."""
        found = {name: self._contrast(step, name) for name in self.predict}
        return mean_of_terms(found, step, self._count)

    def _contrast(self, step: Step, name: str) -> InfoNCE:
        whole = step.pooled_of_all(name)
        parts = all_gather_rows(self._part(step, name, whole))
        logits = cosine_logits(whole, self.predict[name](parts), 1 / self.temperature)
        own = torch.eye(len(whole), dtype=torch.bool, device=whole.device)
        return cross_entropy_terms(logits, own, ~(own | step.alike(name)))

    def _part(self, step: Step, name: str, like: Tensor) -> Tensor:
        """(n, D) pooled of what is left of this rank's studies that have the modality."""
        if name not in step.batch.inputs:
            return like.new_zeros(0, like.shape[1])
        keep = study_masking(step, name, self.mask_ratio, "biot").keep
        return step.encode(keep={name: keep})[name].pooled.to(like.dtype)

    def _count(self, step: Step) -> Tensor:
        return torch.stack([(~step.alike(name)).any(1).sum() for name in self.predict]).sum()
