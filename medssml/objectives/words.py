"""The tokens that stand for words, of all ranks: without [CLS], [SEP] and padding."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from medssml.batch import Encoded
from medssml.encoders import TextEncoder
from medssml.losses import all_gather_rows
from medssml.objectives.step import Step


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
    mine = nn.functional.pad(mine, (0, length - mine.shape[1]))
    return everyone._replace(mask=all_gather_rows(mine.long()).bool())
