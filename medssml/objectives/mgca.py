"""MGCA: modalities of one study find each other, and say the same of which prototype the study belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medssml.losses import sinkhorn
from medssml.model import MultimodalModel
from medssml.objectives.clock import Clock, Ramp, ends, value_at
from medssml.objectives.contrast import CrossModalContrast
from medssml.objectives.sides import Side, count_of_both
from medssml.objectives.step import Step
from medssml.objectives.swav import Prototypes, share_used, swapped_prediction


class MGCA(CrossModalContrast):
    """loss = contrast (ITA) + alignment * prototypes (CPA)

        contrast = the symmetric InfoNCE of `CrossModalContrast`
        prototypes = mean over studies and ordered pairs of modalities (m, n) of  - sum over k of q_m[k] log softmax(z_n C / t)[k]
        q_m = sinkhorn(z_m C / epsilon)   among the studies of all ranks that have m

    z are unit vectors in one space, that of the contrast, and C are K unit prototypes that all modalities share: studies that
    look alike across subjects, as those of one disease do, come near one prototype, which contrast alone pushes apart. A study
    with one of a pair's modalities is no term of it and balances the codes. Codes have no gradient. The third part of the paper,
    token-wise alignment (CTA), is `TokenAlignment` beside it, at a weight of 0.7.

    [1] Wang et al., Multi-granularity cross-modal alignment for generalized medical visual representation learning (MGCA),
    NeurIPS 2022.

    Args:
        model: the model.
        dim: of the space; 128 as in the paper.
        temperature: of the contrast; 0.07 as in the paper, where it stays. learn_temperature: whether it is trained.
        pairs: such as ["ct+report", "xray+report"]; all pairs by default.
        batch_norm: before the projection; see `CrossModalContrast`.
        alignment: share of the prototypes in the loss; 0.5 as in the paper.
        prototypes: K; 500 as in the paper, for 200,000 pairs: take several times the number of kinds expected.
        prototype_temperature: t; 0.2 as in the paper. epsilon: of Sinkhorn, whose 3 iterations are the paper's; 0.05.
        freeze_epochs: first epochs in which the prototypes stay; 1 as in the paper.
        weight: in the sum of objectives.

    Raises:
        ValueError: fewer than two prototypes, or numbers that are out of bounds.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        dim: int = 128,
        temperature: float = 0.07,
        learn_temperature: bool = False,
        pairs: Sequence[str] | None = None,
        batch_norm: bool | Sequence[str] = True,
        alignment: float | Ramp = 0.5,
        prototypes: int = 500,
        prototype_temperature: float = 0.2,
        epsilon: float = 0.05,
        freeze_epochs: int = 1,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(
            model, dim=dim, temperature=temperature, learn_temperature=learn_temperature, pairs=pairs,
            batch_norm=batch_norm, weight=weight,
        )  # fmt: skip
        if prototypes < 2:
            raise ValueError(f"MGCA: prototypes is {prototypes}; fix: 2 or more")
        if not min(prototype_temperature, epsilon) > 0:
            raise ValueError(
                f"MGCA: prototype_temperature is {prototype_temperature} and epsilon {epsilon}; expected positive numbers"
            )
        if not all(end >= 0 for end in ends(alignment)):
            raise ValueError(f"MGCA: alignment is {alignment}; expected 0 or more")
        self.alignment = alignment
        self.prototype_temperature, self.epsilon, self.freeze_epochs = prototype_temperature, epsilon, freeze_epochs
        self.prototypes = Prototypes(prototypes, dim)
        self.swapped = [(Side(0, a), Side(0, b)) for pair in self.pairs for a, b in (pair, pair[::-1])]

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, its two parts, what the contrast reports, and the share of prototypes that are the nearest of some study."""
        embeddings = self._embeddings(step)
        contrast, aligned = self._contrasted(step, embeddings), self._aligned(step, embeddings)
        if aligned is None:
            # No study has two modalities: then there is no pair to contrast either.
            return None
        parts = {} if contrast is None else {"contrast": contrast["loss"]}
        parts["prototypes"] = value_at(self.alignment, step.clock) * aligned["loss"]
        logged = {f"loss_{name}": part.detach() for name, part in parts.items()}
        return {**(contrast or {}), **aligned, **logged, "loss": torch.stack(list(parts.values())).sum()}

    def after_step(self, clock: Clock) -> None:
        """Prototypes become unit vectors again."""
        self.prototypes.normalise()

    def _aligned(self, step: Step, embeddings: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """The second part, not weighed."""
        count = self._studies(step)
        if count == 0:
            return None
        frozen = step.clock.epoch < self.freeze_epochs
        scores = {Side(0, name): self.prototypes(z, frozen=frozen) for name, z in embeddings.items()}
        codes = {side: sinkhorn(cosines.detach(), epsilon=self.epsilon) for side, cosines in scores.items()}
        total = swapped_prediction(step, self.swapped, codes, scores, self.prototype_temperature)
        used = share_used(codes.values(), len(self.prototypes.weight))
        return {"loss": total / count * step.share(self._studies), "prototypes_used": used}

    def _studies(self, step: Step) -> Tensor:
        return count_of_both(step, self.swapped)
