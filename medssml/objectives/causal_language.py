"""Causal language modelling: each word of a report from the words before it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import torch
from torch import Tensor, nn

from medssml.config import LeftOut
from medssml.encoders import TextEncoder
from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.objectives.words import no_words, text_encoder, word_terms


class CausalLanguageModelling(Objective):
    """loss = mean over words of  -log p(word | the words before it)

    The reports' own encoder reads from left to right: in this pass a token attends to itself and to what stands before it, so
    that no later word can leak into a prediction. Every word is asked for, and the end of the report; padding never. The
    output layer shares the encoder's word embedding. Everywhere else the encoder reads in both directions.

    [1] Radford et al., Improving language understanding by generative pre-training, 2018 (GPT).

    Args:
        model: the model.
        modality: whose encoder is a `TextEncoder`.
        weight: in the sum of objectives.
    """

    def __init__(self, model: MultimodalModel, *, modality: str = "report", weight: float | Ramp = 1.0) -> None:
        super().__init__(model, weight=weight)
        encoder = text_encoder(model, modality, "CausalLanguageModelling")
        self.modality = modality
        width = encoder.bert.get_input_embeddings().weight.shape[1]
        self.transform = nn.Sequential(nn.Linear(encoder.dim, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(encoder.vocab_size))

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the share of words that are the likeliest."""
        total, right, count = (global_sum(value) for value in self._predict(step))
        if count == 0:
            return None
        return {"loss": total / count * step.share(self._count), "accuracy": right / count}

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`."""
        modality = arguments.get("modality", "report")
        if modality not in left:
            raise LeftOut(f"needs {modality}")
        return arguments

    def _predict(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """This rank's sum of cross-entropies, number of right words, number of words."""
        if self.modality not in step.batch.inputs:
            return no_words(self.bias)
        inputs = cast(dict[str, Tensor], step.batch.inputs[self.modality])
        ids, real = inputs["input_ids"], inputs["attention_mask"].bool()

        # Read from left to right.
        earlier = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
        states = step.raw(inputs={self.modality: {**inputs, "sees": earlier.expand(len(ids), -1, -1)}})

        # What stands at a word names the next one.
        asked = real[:, 1:]
        hidden = self.transform(states[self.modality].tokens[:, :-1][asked])
        return word_terms(hidden, ids[:, 1:][asked], cast(TextEncoder, step.model.encoders[self.modality]), self.bias)

    def _count(self, step: Step) -> Tensor:
        inputs = cast(dict[str, Tensor] | None, step.batch.inputs.get(self.modality))
        words = step.batch.key.new_zeros(()) if inputs is None else inputs["attention_mask"][:, 1:].sum()
        return global_sum(words)
