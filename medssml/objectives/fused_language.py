"""Masked language modelling through the fusion: the hidden words of a report, from all tokens of the study."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from medssml.batch import Inputs
from medssml.encoders import TextEncoder
from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.masked_language import MaskedLanguageModelling
from medssml.objectives.step import Step
from medssml.objectives.words import no_words, word_terms


class FusedMaskedLanguage(MaskedLanguageModelling):
    """Cross-entropy of hidden words, predicted from the report's tokens after the fusion with all that the study has.

        loss = mean over asked tokens of  -log p(token | the report as shown, the other modalities)

    The words that other modalities can tell are learned by looking at them, token by token, which is what single-stream and
    two-stream models do ([1] VisualBERT, [2] ViLT, [3] ALBEF). A report that is all a study has is learned from too. The
    fusion must read and give tokens.

    [1] Li et al. 2019. [2] Kim, Son, Kim, ICML 2021. [3] Li et al., NeurIPS 2021.

    Args:
        model: the model, whose fusion reads tokens.
        modality: whose encoder is a `TextEncoder`.
        mask_ratio: share of the words that are asked for; higher than BERT's, as the other modalities help.
        weight: in the sum of objectives.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modality: str = "report",
        mask_ratio: float | Ramp = 0.3,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, modality=modality, mask_ratio=mask_ratio, weight=weight)
        if model.fusion.reads != "tokens":
            kind = type(model.fusion).__name__
            raise ValueError(f"FusedMaskedLanguage: {kind} reads pooled vectors; fix: tokens: all of a MaskedAttention")
        width = cast(TextEncoder, model.encoders[modality]).bert.get_input_embeddings().weight.shape[1]
        self.transform = nn.Sequential(nn.Linear(model.dim, width), nn.GELU(), nn.LayerNorm(width))

    def _predict(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """This rank's sum of cross-entropies, number of right answers, number of asked tokens."""
        if self.modality not in step.batch.inputs:
            return no_words(self.bias)
        inputs = cast(dict[str, Tensor], step.batch.inputs[self.modality])
        shown, asked = self._corruption(step)
        changed: dict[str, Inputs] = {self.modality: {**inputs, "input_ids": shown}}

        # The other modalities as they are, the report with its hidden words, and what the fusion makes of both.
        fused = step.fuse({**step.encoded, **step.encode(inputs=changed)})
        return self.score(step, fused.parts[self.modality].tokens, inputs["input_ids"], asked)

    def score(self, step: Step, tokens: Tensor, input_ids: Tensor, asked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of cross-entropies, number of right answers, number of asked tokens.

        Args:
            tokens: (n, L, D) of the report after the fusion. input_ids: (n, L) its words. asked: (n, L) bool.
        """
        states = self.transform(tokens[asked])
        encoder = cast(TextEncoder, step.model.encoders[self.modality])
        return word_terms(states, input_ids[asked], encoder, self.bias)
