"""Contrast of two sets of embeddings of which some rows belong together.

Reference: [1] van den Oord et al., Representation learning with contrastive predictive coding, arXiv:1807.03748 (2018).
[2] Radford et al., Learning transferable visual models from natural language supervision, ICML 2021: symmetric form.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class InfoNCE(NamedTuple):
    """A sum of terms and what to divide it by.

    total: () sum of the terms. terms: () number of them; 0 where nothing can be contrasted, and `total` is 0 then.
    correct: () number of terms whose match is the nearest candidate.
    """

    total: Tensor
    terms: Tensor
    correct: Tensor


def same(a: Tensor, b: Tensor) -> Tensor:
    """(Na, Nb) bool: which entries of `a` (Na,) equal which of `b` (Nb,)."""
    return a[:, None] == b[None, :]


def cosine_logits(a: Tensor, b: Tensor, scale: Tensor | float) -> Tensor:
    """(Na, Nb) cosines of `a` (Na, D) and `b` (Nb, D) times `scale`, in float32 or better.

    Not in half precision, autocast or not: at a temperature of 0.01 its steps are as large as the differences.
    """
    dtype = torch.promote_types(a.dtype, torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        return scale * (F.normalize(a.to(dtype), dim=1) @ F.normalize(b.to(dtype), dim=1).T)


def cross_entropy_terms(logits: Tensor, match: Tensor, negative: Tensor) -> InfoNCE:
    """For every row with a match: how surely it is found among the row's negatives.

    Args:
        logits: (Na, Nb).
        match: (Na, Nb) bool, at most one True in a row.
        negative: (Na, Nb) bool, the candidates that are certainly no match.

    Returns:
        -log(exp(match) / (exp(match) + sum of exp(negatives))), summed over the rows with a match and a negative.
    """
    rows = (match.any(1) & negative.any(1)).nonzero().squeeze(1)
    logits, match, negative = logits[rows], match[rows], negative[rows]

    own = logits.masked_fill(~match, 0).sum(1)
    others = logits.masked_fill(~negative, -torch.inf)
    total = (torch.logsumexp(torch.cat([own[:, None], others], dim=1), dim=1) - own).sum()

    nearest = others.detach().amax(1) if len(rows) else own.detach()
    return InfoNCE(total, torch.tensor(len(rows), device=logits.device), (own.detach() > nearest).sum())


def count_terms(match: Tensor, exclude: Tensor | None = None) -> Tensor:
    """() how many terms `info_nce` has with these masks (Na, Nb), whatever the embeddings are."""
    negative = ~match if exclude is None else ~(match | exclude)
    rows = (match.any(1) & negative.any(1)).sum()
    return (rows + (match.any(0) & negative.any(0)).sum()) / 2


def info_nce(
    a: Tensor,
    b: Tensor,
    *,
    scale: Tensor | float = 1 / 0.07,
    match: Tensor | None = None,
    exclude: Tensor | None = None,
) -> InfoNCE:
    """Symmetric InfoNCE: each row of `a` finds its match among the rows of `b`, and the reverse.

    A row without a match, or left without any negative, is no term. Both directions count one half.

    Args:
        a: (Na, D), any length. b: (Nb, D).
        scale: 1 / temperature.
        match: (Na, Nb) bool, at most one True in a row and in a column; the identity by default.
        exclude: (Na, Nb) bool, pairs that are neither match nor negative: duplicates, studies of one subject.

    Raises:
        ValueError: shapes that do not belong together.
    """
    if match is None:
        if len(a) != len(b):
            raise ValueError(f"a has {len(a)} rows and b {len(b)}: which belong together? fix: pass `match`")
        match = torch.eye(len(a), dtype=torch.bool, device=a.device)
    for name, mask in (("match", match), ("exclude", exclude)):
        if mask is not None and mask.shape != (len(a), len(b)):
            raise ValueError(f"{name} has shape {tuple(mask.shape)}, expected ({len(a)}, {len(b)}), rows of a and of b")
    negative = ~match if exclude is None else ~(match | exclude)

    logits = cosine_logits(a, b, scale)
    forward = cross_entropy_terms(logits, match, negative)
    backward = cross_entropy_terms(logits.T, match.T, negative.T)
    return InfoNCE(*((x + y) / 2 for x, y in zip(forward, backward, strict=True)))
