"""Masked multimodal modelling: words and patches are hidden at once, and each is restored from what is left of both."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from medssml.batch import Fused, Inputs
from medssml.config import LeftOut
from medssml.encoders.base import MaskableEncoder
from medssml.losses import global_sum, masked_mse
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.objectives.clock import Ramp
from medssml.objectives.fused_language import FusedMaskedLanguage
from medssml.objectives.masked_reconstruction import Decoder, maskable, nothing, study_masking, targets_of
from medssml.objectives.masking import Masking
from medssml.objectives.step import Step


class MaskedMultimodal(Objective):
    """loss = mean over asked words of  -log p(word | words left, tokens left)
            + mean over modalities of  mean over hidden tokens of  |prediction - normalised patch|^2 / P

    One pass: the report with its hidden words and the visible tokens of the other modalities through one fusion, from whose
    tokens the words and, by a light decoder per modality, the patches are read. M3AE [1] with `image_mask` 0.75; FLAVA's
    masked multimodal modelling [2] with `paired`: of studies without a report, or with nothing beside it, nothing is asked,
    and in a batch without any pair there is no loss, as there is no pair to learn from.

    [1] Chen et al., Multi-modal masked autoencoders for medical vision-and-language pre-training, MICCAI 2022.
    [2] Singh et al., FLAVA: a foundational language and vision alignment model, CVPR 2022.

    Args:
        model: the model, whose fusion reads tokens.
        report: whose words are hidden; its encoder is a `TextEncoder`.
        modalities: whose tokens are hidden; all whose encoder can leave tokens out by default.
        word_mask: share of the words that are asked for. image_mask: share of hidden tokens.
        paired: ask of studies alone that have both.
        decoder_dim, decoder_depth, decoder_heads: of each decoder; 384, 4 and 6 in M3AE.
        weight: in the sum of objectives.

    Raises:
        ValueError: a fusion of pooled vectors, or an encoder that cannot leave tokens out.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        report: str = "report",
        modalities: Sequence[str] | None = None,
        word_mask: float | Ramp = 0.15,
        image_mask: float | Ramp = 0.75,
        paired: bool = False,
        decoder_dim: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        self.language = FusedMaskedLanguage(model, modality=report, mask_ratio=word_mask)
        self.report, self.image_mask, self.paired = report, image_mask, paired
        self.decoders = nn.ModuleDict(
            {
                name: Decoder(model.dim, encoder.patch_dim, decoder_dim, decoder_depth, decoder_heads, encoder.dim)
                for name, encoder in maskable(model, modalities, "MaskedMultimodal").items()
            }
        )

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, the loss of the words and of each modality's patches, and the share of words that are found."""
        words, patches = self._restore(step)
        total, right, asked = (global_sum(value) for value in words)
        error = global_sum(torch.stack([total for total, _ in patches]))
        hidden = global_sum(torch.stack([count for _, count in patches]))
        if asked == 0 and not bool((hidden > 0).any()):
            return None
        language, means = total / asked.clamp(min=1), error / hidden.clamp(min=1)
        loss = language * step.share(lambda other: self._counts(other)[0])
        loss = loss + step.mean_of_means(means, lambda other: self._counts(other)[1:])
        out = {"loss": loss}
        if asked > 0:
            out |= {f"loss_{self.report}": language.detach(), "accuracy": right / asked}
        logged = zip(self.decoders, means.detach(), hidden, strict=True)
        return out | {f"loss_{name}": mean for name, mean, count in logged if count > 0}

    def _restore(self, step: Step) -> tuple[tuple[Tensor, Tensor, Tensor], list[tuple[Tensor, Tensor]]]:
        """Of this rank: errors of words, right ones and their number; errors of each modality's tokens and their number."""
        within, keep = self._within(step), self._maskings(step)
        changed: dict[str, Inputs] = {}
        if self.report in step.batch.inputs:
            inputs = cast(dict[str, Tensor], step.batch.inputs[self.report])
            changed = {self.report: {**inputs, "input_ids": self.language._corruption(step).input_ids}}

        # One pass over what is left of everything.
        encoded = step.encode(keep={name: masking.keep for name, masking in keep.items()}) if keep else {}
        encoded |= step.encode(inputs=changed) if changed else {}
        fused = step.fuse(encoded, within)
        patches = [
            self._patches(step, name, fused, keep[name], self._shown(step, name, within))
            if name in fused.parts
            else nothing(decoder)
            for name, decoder in self.decoders.items()
        ]
        return self._words(step, fused, within), patches

    def _words(self, step: Step, fused: Fused, within: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.report not in fused.parts:
            zero = nothing(self.language)[0]
            return zero, zero.long(), zero.long()
        inputs = cast(dict[str, Tensor], step.batch.inputs[self.report])
        shown = self._shown(step, self.report, within)
        asked = self.language._corruption(step).asked[shown]
        return self.language.score(step, fused.parts[self.report].tokens, inputs["input_ids"][shown], asked)

    def _patches(self, step: Step, name: str, fused: Fused, masked: Masking, shown: Tensor) -> tuple[Tensor, Tensor]:
        encoder, inputs = cast(MaskableEncoder, step.model.encoders[name]), step.batch.inputs[name]
        masking = Masking(*(part[shown] for part in masked))
        real, place = encoder.token_mask(inputs)[shown], encoder.positions(inputs)[shown]
        predicted = self.decoders[name](fused.parts[name].tokens, masking, place, real)
        return masked_mse(predicted, targets_of(encoder, inputs)[shown], masking.masked)

    def _within(self, step: Step) -> Tensor:
        """(B, M) bool: what is seen, and asked about."""
        column = step.batch.column(self.report)
        images = [step.batch.column(name) for name in self.decoders]
        used = torch.zeros_like(step.present)
        used[:, [column, *images]] = True
        within = step.present & used
        if self.paired:
            within = within & (within[:, column] & within[:, images].any(1))[:, None]
        return within

    def _shown(self, step: Step, name: str, within: Tensor) -> Tensor:
        """(n_m,) bool: which of the studies that have a modality are asked about."""
        return within[step.batch.rows(name), step.batch.column(name)]

    def _maskings(self, step: Step) -> dict[str, Masking]:
        return {
            name: study_masking(step, name, self.image_mask, "masked_multimodal")
            for name in self.decoders
            if name in step.batch.inputs
        }

    def _counts(self, step: Step) -> Tensor:
        """(1 + modalities,) how many words and tokens of all ranks are asked for."""
        within, counts = self._within(step), step.batch.key.new_zeros(1 + len(self.decoders))
        if self.report in step.batch.inputs:
            counts[0] = self.language._corruption(step).asked[self._shown(step, self.report, within)].sum()
        for name, masking in self._maskings(step).items():
            place = 1 + list(self.decoders).index(name)
            counts[place] = masking.masked[self._shown(step, name, within)].sum()
        return global_sum(counts)

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`."""
        report = arguments.get("report", "report")
        if report not in left:
            raise LeftOut(f"needs {report}")
        return super().restricted_to(arguments, left)
