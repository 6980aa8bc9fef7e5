"""Masked language modelling: the hidden words of a report, from the others and from what else the study has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from medssml.batch import Encoded
from medssml.config import LeftOut
from medssml.encoders import TextEncoder
from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Clock, Ramp, ends, value_at
from medssml.objectives.draws import random_ranks, uniform
from medssml.objectives.masked_reconstruction import maskable, study_masking
from medssml.objectives.step import Step
from medssml.objectives.words import no_words, text_encoder, word_terms

#: Of the tokens asked for, the share that is shown as [MASK], and as [MASK] or another word; the rest stays.
AS_MASK, AS_MASK_OR_WORD = 0.8, 0.9


class Corruption(NamedTuple):
    """input_ids: (n, L) int64 as shown. asked: (n, L) bool, the tokens to be predicted."""

    input_ids: Tensor
    asked: Tensor


class MaskedLanguageModelling(Objective):
    """Cross-entropy of 15 % of the words: 80 % of these are shown as [MASK], 10 % as another word, 10 % as they are.

        loss = mean over asked tokens of  -log p(token | the report as shown)

    Devlin et al. 2019 (BERT). Tokens are asked for one by one, or, with `whole_words`, all pieces of a word at once, so that
    "pneumo" does not give "thorax" away: of the words then 15 %, and each piece is shown as [MASK], another or itself by a
    draw of its own, as in the code of BERT. Special tokens and padding are never asked for; each report with a word is asked
    for at least one. The output layer shares the encoder's word embedding.

    With `context` it is cross-modal: the embedding of each named modality that the study has is added to its words, so
    that "nodule of [MASK] mm" can be answered only by an encoder that measures the nodule (Lu et al. 2019, ViLBERT;
    Zhou et al. 2023, MRM, who add the image's mean to every word and hide half of them). What is absent adds nothing.

    Args:
        model: the model.
        modality: whose encoder is a `TextEncoder`.
        mask_ratio: share of the words that are asked for, a number or a `Ramp`.
        whole_words: ask for all pieces of a word; the transform says which they are (`Tokenized`).
        context: other modalities whose embedding may be seen; none by default.
        context_mask: share of the context's tokens that are hidden from the words, the same ones as `MaskedReconstruction`
            hides at this ratio; None shows all. Their encoders can leave tokens out.
        weight: in the sum of objectives.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modality: str = "report",
        mask_ratio: float | Ramp = 0.15,
        whole_words: bool = False,
        context: Sequence[str] = (),
        context_mask: float | Ramp | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        self.modality = modality
        encoder = text_encoder(model, modality, "MaskedLanguageModelling")
        if not all(0 < end < 1 for end in ends(mask_ratio)):
            raise ValueError(f"mask_ratio {mask_ratio}; expected a number between 0 and 1")
        self.mask_ratio, self.whole_words = mask_ratio, whole_words
        self.mask_id = encoder.special_ids["mask"]
        special = sorted(set(encoder.special_ids.values()))
        words = torch.tensor([i for i in range(encoder.vocab_size) if i not in special])
        self.register_buffer("special", torch.tensor(special), persistent=False)
        self.register_buffer("words", words, persistent=False)
        self.special: Tensor
        self.words: Tensor
        width = encoder.bert.get_input_embeddings().weight.shape[1]
        seen = chosen(model, list(context), "MaskedLanguageModelling: context") if context else ()
        if modality in seen:
            raise ValueError(f"MaskedLanguageModelling: {modality} cannot be its own context; name other modalities")
        self.context = nn.ModuleDict({name: nn.Linear(model.dim, encoder.dim) for name in seen})
        self.context_mask = context_mask
        if context_mask is not None and seen:
            maskable(model, seen, "MaskedLanguageModelling: context_mask")
        self.mix = CrossModalMix(encoder.dim) if seen else None
        self.transform = nn.Sequential(nn.Linear(encoder.dim, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(encoder.vocab_size))

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the share of the asked tokens that are predicted."""
        total, right, count = self._predict(step)
        total, right, count = global_sum(total), global_sum(right), global_sum(count)
        if count == 0:
            return None
        return {"loss": total / count * step.share(self._count), "accuracy": right / count}

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`; without its context it still learns from the words."""
        modality = arguments.get("modality", "report")
        if modality not in left:
            raise LeftOut(f"needs {modality}")
        if not arguments.get("context"):
            return arguments
        return {**arguments, "context": [name for name in arguments["context"] if name in left]}

    def corrupt(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        keys: Tensor,
        *,
        words: Tensor | None = None,
        seed: int = 0,
        clock: Clock | None = None,
    ) -> Corruption:
        """Chooses what is asked for, and hides it.

        Args:
            input_ids: (n, L) int64. attention_mask: (n, L). keys: (n,) int64, one seed per study.
            words: (n, L) int64 which word each token is a piece of, to ask for whole words; None for token by token.
        """
        length = input_ids.shape[1]
        purpose = f"masked_language/{self.modality}"
        word = attention_mask.bool() & ~torch.isin(input_ids, self.special)

        # What is drawn is a unit, a token or all pieces of a word; 0 is none.
        unit = torch.where(word, word.cumsum(1) if words is None else words, 0)
        units = int(unit.max()) + 1 if unit.numel() else 1
        real = torch.zeros(len(unit), units, dtype=torch.bool, device=unit.device).scatter(1, unit, True)
        real[:, 0] = False
        rank = random_ranks(uniform(keys, real.shape[1], f"{purpose}/which", seed=seed), real)
        ratio = value_at(self.mask_ratio, Clock() if clock is None else clock)
        wanted = (ratio * real.sum(1, keepdim=True)).round().clamp(min=1)
        asked = word & (rank.gather(1, unit) < wanted)

        how = uniform(keys, length, f"{purpose}/how", seed=seed)
        draw = uniform(keys, length, f"{purpose}/word", seed=seed)
        other = self.words[(draw * len(self.words)).long()]
        shown = torch.where(asked & (how < AS_MASK_OR_WORD), other, input_ids)
        return Corruption(shown.masked_fill(asked & (how < AS_MASK), self.mask_id), asked)

    def _predict(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """This rank's sum of cross-entropies, number of right answers, number of asked tokens."""
        rows = step.batch.rows(self.modality)
        if len(rows) == 0:
            return no_words(self.bias)
        encoder = cast(TextEncoder, step.model.encoders[self.modality])
        inputs = cast(dict[str, Tensor], step.batch.inputs[self.modality])
        shown, asked = self._corruption(step)

        # The vocabulary is large: only the asked tokens are scored against it.
        states = step.raw(inputs={self.modality: {**inputs, "input_ids": shown}})[self.modality].tokens[asked]
        if self.mix is not None:
            states = self.mix(states + self._seen(step, rows, states)[asked.nonzero()[:, 0]])
        return word_terms(self.transform(states), inputs["input_ids"][asked], encoder, self.bias)

    def _corruption(self, step: Step) -> Corruption:
        inputs = cast(dict[str, Tensor], step.batch.inputs[self.modality])
        keys = step.batch.key[step.batch.rows(self.modality)]
        if self.whole_words and "word" not in inputs:
            raise ValueError(
                f"MaskedLanguageModelling: the inputs of {self.modality} do not say which token is of which word; fix: "
                f"Tokenized as the last step of its transform, or whole_words: false"
            )
        return self.corrupt(
            inputs["input_ids"], inputs["attention_mask"], keys,
            words=inputs["word"] if self.whole_words else None, seed=step.seed, clock=step.clock,
        )  # fmt: skip

    def _count(self, step: Step) -> Tensor:
        """How many words of all ranks are asked for."""
        asked = (
            self._corruption(step).asked.sum() if self.modality in step.batch.inputs else step.batch.key.new_zeros(())
        )
        return global_sum(asked)

    def _seen(self, step: Step, rows: Tensor, like: Tensor) -> Tensor:
        """(n, D) sum over the context's modalities that the studies at `rows` have."""
        total = like.new_zeros(len(step.batch), like.shape[-1])
        encoded = step.encoded if self.context_mask is None else self._unmasked(step, self.context_mask)
        for name, linear in self.context.items():
            if name in encoded:
                total = total.index_add(0, step.batch.rows(name), linear(encoded[name].pooled).to(total.dtype))
        return total[rows]

    def _unmasked(self, step: Step, ratio: float | Ramp) -> dict[str, Encoded]:
        """The context from its visible tokens alone."""
        keep = {
            name: study_masking(step, name, ratio, "masked_reconstruction").keep
            for name in self.context
            if name in step.batch.inputs
        }
        return step.encode(keep=keep) if keep else {}


class CrossModalMix(nn.Module):
    """x + mlp(norm(x)): which word is asked for decides what of the other modalities answers it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) from x (..., D)."""
        return x + self.mlp(self.norm(x))
