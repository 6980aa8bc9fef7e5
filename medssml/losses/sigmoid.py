"""Contrast of every pair by itself: is it one thing, or two?

Reference: [1] Zhai et al., Sigmoid loss for language image pre-training, ICCV 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from medssml.losses.info_nce import InfoNCE
from medssml.losses.tiles import Alike, tiles_of


def sigmoid_contrast(
    a: Tensor, b: Tensor, *, scale: Tensor, bias: Tensor, partner: Tensor, exclude: Alike | None = None
) -> InfoNCE:
    """Sum over pairs of rows of  -log sigmoid(y (scale a . b + bias)),  y = 1 for a match and -1 for any other.

    Computed in tiles of rows that the backward pass makes again: memory grows with Na + Nb.

    Args:
        a: (Na, D) unit vectors. b: (Nb, D) unit vectors.
        scale, bias: ().
        partner: (Na,) int64 row of b that is the match, -1 for none.
        exclude: pairs that are no term: duplicates, studies of one subject. A match stays one.

    Returns:
        the sum, the number of matches, and how many rows with a match have it above all of their negatives.
    """
    total, correct = a[:0].sum() + b[:0].sum(), partner.new_zeros(())
    for rows in tiles_of(len(a), len(b)):
        # The masks are made again as well: kept for all tiles they would be a table of all pairs.
        part, found = checkpoint(_tile, a, b, scale, bias, rows, partner, exclude, use_reentrant=False)
        total, correct = total + part, correct + found
    return InfoNCE(total, (partner >= 0).sum(), correct)


def _tile(
    a: Tensor, b: Tensor, scale: Tensor, bias: Tensor, rows: slice, partner: Tensor, exclude: Alike | None
) -> tuple[Tensor, Tensor]:
    match = partner[rows, None] == torch.arange(len(b), device=b.device)
    negative = ~match if exclude is None else ~(match | exclude.rows(rows))
    with torch.autocast(a.device.type, enabled=False):
        logits = scale * (a[rows] @ b.T) + bias
    terms = F.softplus(torch.where(match, -logits, logits))
    seen = logits.detach()
    highest = seen.masked_fill(~negative, -torch.inf).amax(1) if logits.shape[1] else seen.sum(1)
    nearest = match & (seen > highest[:, None])
    return torch.where(match | negative, terms, 0.0).sum(), nearest.sum()
