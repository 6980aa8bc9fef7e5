"""data2vec 2.0: from the visible tokens of one modality, what a teacher that sees them all makes of the hidden ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.encoders.base import MaskableEncoder
from medssml.losses import global_sum, masked_mse
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.objectives.clock import Ramp
from medssml.objectives.masked_reconstruction import Decoder, maskable, study_masking
from medssml.objectives.masking import Masking
from medssml.objectives.step import Step


class Data2Vec(Objective):
    """loss = mean over modalities of  mean over hidden tokens of  |decoder(student(visible)) - y|^2 / D

    y, the target of a token, is the mean over the teacher's last `layers` blocks of their outputs, each normalised over its
    features, seen with nothing hidden: contextual, not local as a pixel or word. The student's encoder computes the visible
    tokens only and a light decoder predicts the others, which is the variant of version 2 [2]; the teacher's targets are
    those of version 1 [1].

    [1] Baevski et al., data2vec: a general framework for self-supervised learning in speech, vision and language, ICML 2022.
    [2] Baevski et al., Efficient self-supervised learning with contextualized target representations, 2022 (data2vec 2.0).

    Args:
        model: the model.
        modalities: of which; all whose encoder can leave tokens out by default.
        mask_ratio: share of hidden tokens.
        layers: K, the teacher's last blocks that are averaged.
        momentum: of the teacher.
        decoder_dim, decoder_depth, decoder_heads: of each modality's decoder, which is thrown away afterwards.
        weight: in the sum of objectives.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        mask_ratio: float | Ramp = 0.75,
        layers: int = 2,
        momentum: float | Ramp = 0.999,
        decoder_dim: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        self.teacher = momentum
        self.mask_ratio, self.layers = mask_ratio, layers
        self.decoders = nn.ModuleDict(
            {
                name: Decoder(encoder.dim, encoder.dim, decoder_dim, decoder_depth, decoder_heads)
                for name, encoder in maskable(model, modalities, "Data2Vec").items()
            }
        )

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the loss of each modality."""
        terms = {name: self._predict(step, name) for name in self.decoders if name in step.batch.inputs}
        zero = step.batch.key.new_zeros((), dtype=next(self.parameters()).dtype)
        total = global_sum(torch.stack([terms[n][0] if n in terms else zero for n in self.decoders]))
        count = global_sum(torch.stack([terms[n][1] if n in terms else zero.long() for n in self.decoders]))
        if not bool((count > 0).any()):
            return None
        means = total / count.clamp(min=1)
        loss = step.mean_of_means(means, lambda other: count if other is step else self._count(other))
        logged = zip(self.decoders, means.detach(), count, strict=True)
        return {"loss": loss, **{f"loss_{name}": mean for name, mean, n in logged if n > 0}}

    def _predict(self, step: Step, name: str) -> tuple[Tensor, Tensor]:
        encoder, inputs = cast(MaskableEncoder, step.model.encoders[name]), step.batch.inputs[name]
        masking, real = self._masking(step, name), encoder.token_mask(inputs)
        visible = step.raw(keep={name: masking.keep})[name].tokens
        predicted = self.decoders[name](visible, masking, encoder.positions(inputs), real)

        outputs = step.teacher.raw(inputs={name: inputs}, layers=self.layers)[name].layers
        target = torch.stack([F.layer_norm(output, output.shape[-1:]) for output in outputs]).mean(0)
        return masked_mse(predicted, target.detach(), masking.masked)

    def _masking(self, step: Step, name: str) -> Masking:
        return study_masking(step, name, self.mask_ratio, "data2vec")

    def _count(self, step: Step) -> Tensor:
        counts = step.batch.key.new_zeros(len(self.decoders))
        for place, name in enumerate(self.decoders):
            if name in step.batch.inputs:
                counts[place] = self._masking(step, name).masked.sum()
        return global_sum(counts)
