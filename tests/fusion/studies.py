"""Encoded studies of three modalities, and what of one of them a loop over modalities reads."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor

from medssml.batch import Encoded

NAMES = ("ct", "xray", "report")
TOKENS = {"ct": 4, "xray": 3, "report": 5}
#: Eight studies, one for each subset of the modalities, none at all among them.
EVERY = torch.tensor(list(product([False, True], repeat=3)))


def encodings(present: Tensor = EVERY, seed: int = 0, dim: int = 16) -> dict[str, Encoded]:
    """What a model would hand to a fusion; the last token of every other study is padding."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for column, name in enumerate(NAMES):
        tokens = torch.randn(len(present), TOKENS[name], dim, generator=generator)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        mask[1::2, -1] = False
        pooled = torch.randn(len(present), dim, generator=generator)
        if present[:, column].any():
            out[name] = Encoded(tokens, mask, pooled).select(present[:, column])
    return out


def vectors_of(encoded: dict[str, Encoded], present: Tensor, study: int) -> dict[int, np.ndarray]:
    """Column -> pooled (D,) of what a study has, in float64."""
    return {
        column: encoded[name].pooled[int(present[:study, column].sum())].double().numpy()
        for column, name in enumerate(NAMES)
        if present[study, column]
    }


def tokens_of(encoded: dict[str, Encoded], present: Tensor, study: int) -> dict[int, np.ndarray]:
    """Column -> real tokens (N, D) of what a study has, in float64."""
    out = {}
    for column, name in enumerate(NAMES):
        if present[study, column]:
            row = int(present[:study, column].sum())
            out[column] = encoded[name].tokens[row][encoded[name].mask[row]].double().numpy()
    return out


def numbers(parameter: Tensor) -> np.ndarray:
    """A parameter as float64."""
    return parameter.detach().double().numpy()


def stirred(fusion: torch.nn.Module, scale: float = 0.3) -> torch.nn.Module:
    """The same fusion in evaluation mode, every parameter moved, so that no first value hides a term."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return fusion.eval()
