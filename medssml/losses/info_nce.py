"""Contrast of two sets of embeddings of which some rows belong together.

Reference: [1] van den Oord et al., Representation learning with contrastive predictive coding, arXiv:1807.03748 (2018).
[2] Radford et al., Learning transferable visual models from natural language supervision, ICML 2021: symmetric form.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.losses.tiles import Alike, TiledContrast, no_negative, tiles_of


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


def count_paired(partner: Tensor, exclude: Alike, share: float = 0.5) -> Tensor:
    """() the same from the partner of each row (Na,), without a table of all pairs; `share` as there."""
    width = len(exclude.b)
    rows = partner.new_zeros(len(partner), dtype=torch.bool)
    columns = partner.new_zeros(width, dtype=torch.bool)
    for part in tiles_of(len(partner), width):
        negative = ~no_negative(part, width, partner, exclude.rows)
        rows[part] = negative.any(1)
        columns |= negative.any(0)
    paired = (partner >= 0).nonzero().squeeze(1)
    return share * rows[paired].sum() + (1 - share) * columns[partner[paired]].sum()


def info_nce(
    a: Tensor,
    b: Tensor,
    *,
    scale: Tensor | float = 1 / 0.07,
    match: Tensor | None = None,
    exclude: Tensor | Alike | None = None,
    share: float = 0.5,
) -> InfoNCE:
    """Symmetric InfoNCE: each row of `a` finds its match among the rows of `b`, and the reverse.

    A row without a match, or left without any negative, is no term. Both directions count one half, or as `share` says.
    Memory grows with Na + Nb where `match` and `exclude` are no tables: see `medssml.losses.tiles`.

    Args:
        a: (Na, D), any length. b: (Nb, D).
        scale: 1 / temperature.
        match: (Na,) int64 row of b that belongs to each row of a, -1 for none, none of b named twice; or (Na, Nb) bool, at
            most one True in a row and in a column; row by row by default.
        exclude: pairs that are neither match nor negative: duplicates, studies of one subject; (Na, Nb) bool or `Alike`.
        share: of the direction from a to b, above 0 and below 1; the other direction has the rest.

    Raises:
        ValueError: shapes that do not belong together.
    """
    if match is None:
        if len(a) != len(b):
            raise ValueError(f"a has {len(a)} rows and b {len(b)}: which belong together? fix: pass `match`")
        match = torch.arange(len(a), device=a.device)
    tables = {"match": None if match.ndim == 1 else match, "exclude": None if isinstance(exclude, Alike) else exclude}
    for name, mask in tables.items():
        if mask is not None and mask.shape != (len(a), len(b)):
            raise ValueError(f"{name} has shape {tuple(mask.shape)}, expected ({len(a)}, {len(b)}), rows of a and of b")
    partner = match if match.ndim == 1 else _partner(match)
    if len(a) == 0 or len(b) == 0:
        nothing = a[:0].sum() + b[:0].sum()
        return InfoNCE(nothing, nothing.detach(), nothing.detach())

    dtype = torch.promote_types(a.dtype, torch.float32)
    factor = torch.as_tensor(scale, dtype=dtype, device=a.device)
    excluded = None if exclude is None else exclude.rows if isinstance(exclude, Alike) else exclude.__getitem__
    return InfoNCE(
        *TiledContrast.apply(a.to(dtype), b.to(dtype), factor, partner, excluded, share, torch.is_grad_enabled())
    )


def _partner(match: Tensor) -> Tensor:
    """(Na,) where each row of (Na, Nb) bool is True, -1 where it is nowhere."""
    found = torch.full((len(match),), -1, device=match.device)
    rows, columns = match.nonzero().unbind(1)
    return found.index_put_((rows,), columns)
