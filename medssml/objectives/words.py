"""The words of a report: its encoder, the tokens that stand for words, and the cross-entropy of words that are asked for."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.batch import Encoded
from medssml.encoders import TextEncoder
from medssml.losses import all_gather_rows
from medssml.model import MultimodalModel
from medssml.objectives.base import chosen
from medssml.objectives.step import Step


def text_encoder(model: MultimodalModel, modality: str, owner: str) -> TextEncoder:
    """The encoder of the reports.

    Raises:
        ValueError: the model has no such modality, or its encoder is no `TextEncoder`.
    """
    chosen(model, [modality], owner)
    encoder = model.encoders[modality]
    if not isinstance(encoder, TextEncoder):
        raise ValueError(f"{owner}: the encoder of {modality} is {type(encoder).__name__}, no TextEncoder")
    return encoder


def words_of_all(step: Step, modality: str) -> Encoded:
    """`step.of_all`, whose mask leaves the special tokens of a text out; every rank asks for it.

    A text without a word keeps its special tokens. Of another modality all real tokens stay.
    """
    everyone = step.of_all(modality)
    encoder = step.model.encoders[modality]
    if not isinstance(encoder, TextEncoder):
        return everyone
    length = everyone.mask.shape[1]
    mine = everyone.mask.new_zeros(0, length)
    if modality in step.batch.inputs:
        inputs = cast(dict[str, Tensor], step.batch.inputs[modality])
        real, ids = inputs["attention_mask"].bool(), inputs["input_ids"]
        word = real & ~torch.isin(ids, torch.tensor(sorted(set(encoder.special_ids.values())), device=ids.device))
        mine = torch.where(word.any(1, keepdim=True), word, real)
    mine = F.pad(mine, (0, length - mine.shape[1]))
    return everyone._replace(mask=all_gather_rows(mine.long()).bool())


def word_terms(states: Tensor, truth: Tensor, encoder: TextEncoder, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`terms_of` the encoder's own words: the output layer is its word embedding (Press and Wolf 2017).

    Args:
        states: (k, D) in the width of the embedding. truth: (k,) int64 words. bias: (vocabulary,).
    """
    return terms_of(F.linear(states, encoder.bert.get_input_embeddings().weight, bias), truth)


def terms_of(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of the cross-entropies, number of right answers, number of words, of logits (k, vocabulary) and words (k,) int64."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    right = (logits.detach().argmax(-1) == truth).sum()
    count = torch.tensor(len(truth), device=truth.device)
    return F.cross_entropy(logits, truth, reduction="sum"), right, count


def no_words(bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of a rank that has no report."""
    zero = bias.new_zeros((), dtype=torch.promote_types(bias.dtype, torch.float32))
    return zero, zero.long(), zero.long()
