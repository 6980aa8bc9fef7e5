"""What methods that name the words of a report share: its encoder, and the cross-entropy of the words that are asked for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.encoders import TextEncoder
from medssml.model import MultimodalModel
from medssml.objectives.base import chosen


def text_encoder(model: MultimodalModel, modality: str, owner: str) -> TextEncoder:
    """The encoder of the reports.

    Raises:
        ValueError: the model has no such modality, or its encoder is no `TextEncoder`.
    """
    chosen(model, [modality], owner)
    encoder = model.encoders[modality]
    if not isinstance(encoder, TextEncoder):
        raise ValueError(f"{owner} of {modality}: its encoder is {type(encoder).__name__}, no TextEncoder")
    return encoder


def word_terms(states: Tensor, truth: Tensor, encoder: TextEncoder, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of the cross-entropies, number of right answers, number of words.

    The output layer is the encoder's word embedding (Press and Wolf 2017).

    Args:
        states: (k, D) in the width of the embedding. truth: (k,) int64 words. bias: (vocabulary,).
    """
    logits = F.linear(states, encoder.bert.get_input_embeddings().weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    right = (logits.detach().argmax(-1) == truth).sum()
    count = torch.tensor(len(truth), device=truth.device)
    return F.cross_entropy(logits, truth, reduction="sum"), right, count


def no_words(bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of a rank that has no report."""
    zero = bias.new_zeros((), dtype=torch.promote_types(bias.dtype, torch.float32))
    return zero, zero.long(), zero.long()
