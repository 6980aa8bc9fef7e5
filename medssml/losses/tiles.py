"""Both directions of a contrast, tile by tile: no table of all pairs is held.

The logits of a few rows at a time are made, used and thrown away. What stays is the normaliser of each row and of each column;
the gradient makes the tiles again. So memory grows with Na + Nb, and not with Na * Nb.

Reference: [1] Milakov and Gimelshein, Online normalizer calculation for softmax, arXiv:1805.02867 (2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: A tile has as many rows as hold so many logits (2 MiB in float32), but not fewer than `ROWS`.
TILE, ROWS = 2**19, 128
#: Logits that are kept from the first pass for the second, whatever the batch: 40 MiB in float32. All others are made again.
KEPT = 10 * 2**20
#: Up to this scale no logit is so far below the highest possible that its exponential is lost in float32: then one exponential,
#: relative to the scale, serves a pair in both directions and in both passes.
ONE_MEASURE = 40.0
#: A vector that is shorter has no direction: as in `torch.nn.functional.normalize`.
SHORTEST = 1e-12

#: Rows of `a` -> (rows, Nb) bool, the pairs that are neither match nor negative.
Excluded = Callable[[slice], Tensor]


class Alike(NamedTuple):
    """Which rows of two sides are no negatives of each other: those that share a number in a column.

    a: (Na, C) int64. b: (Nb, C) int64.
    """

    a: Tensor
    b: Tensor

    def rows(self, part: slice) -> Tensor:
        """(rows, Nb) bool for some rows of `a`."""
        mine = self.a[part]
        found = torch.zeros(len(mine), len(self.b), dtype=torch.bool, device=mine.device)
        for column in range(mine.shape[1]):
            found |= mine[:, column, None] == self.b[None, :, column]
        return found


def tiles_of(length: int, width: int) -> Iterator[slice]:
    """Slices of `length` rows of `width` entries."""
    rows = max(ROWS, TILE // max(1, width))
    return (slice(start, min(start + rows, length)) for start in range(0, length, rows))


def no_negative(rows: slice, width: int, partner: Tensor, excluded: Excluded | None) -> Tensor:
    """(rows, width) bool: the partner of each row, and what is excluded."""
    mine = partner[rows]
    blocked = torch.zeros(len(mine), width, dtype=torch.bool, device=mine.device)
    if excluded is not None:
        blocked |= excluded(rows)
    paired = (mine >= 0).nonzero().squeeze(1)
    blocked[paired, mine[paired]] = True
    return blocked


class TiledContrast(torch.autograd.Function):
    """Sum over both directions, each times its share, of log(exp(own) + sum of exp(negatives)) - own.

    Logits are scale * cos(a, b).
    """

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        scale: Tensor,
        partner: Tensor,
        excluded: Excluded | None,
        share: float,
        keep: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """total, terms, correct, (): see `medssml.losses.InfoNCE`.

        Args:
            a: (Na, D). b: (Nb, D). scale: (). partner: (Na,) int64 row of b, -1 for none.
            share: of the direction from a to b, above 0 and below 1; the other has the rest.
            keep: the first tiles, as a backward pass will follow.
        """
        with torch.autocast(a.device.type, enabled=False):
            tiles = _Tiles(a, b, scale, partner, excluded)
            found = _normalisers(tiles, keep)

        paired = (partner >= 0).nonzero().squeeze(1)
        own = tiles.own[paired]
        total, counts, norms = own.new_zeros(()), [], []
        sides = zip(found, (paired, partner[paired]), (share, 1 - share), strict=True)
        for (highest, negatives), at, part in sides:
            # Without a partner or without a negative there is no term: an infinite normaliser, a softmax of zero.
            norm = torch.full_like(negatives, torch.inf)
            norm[at] = torch.logaddexp(own, negatives[at]).masked_fill(negatives[at] == -torch.inf, torch.inf)
            term = norm[at] != torch.inf
            total = total + part * (norm[at] - own)[term].sum()
            counts.append(part * torch.stack([term.sum(), (term & (own > highest[at])).sum()]))
            norms.append(norm)
        ctx.tiles, ctx.share = tiles, share
        ctx.save_for_backward(*norms)
        terms, correct = torch.stack(counts).sum(0)
        ctx.mark_non_differentiable(terms, correct)
        return total, terms, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        """Share * (softmax of the row - 1 at the partner), and the same of the column, times the other side."""
        of_rows, of_columns = ctx.saved_tensors
        tiles: _Tiles = ctx.tiles
        partner, scale = tiles.partner, tiles.scale
        norms = torch.stack([of_rows, torch.where(partner >= 0, of_columns[partner], torch.inf)])
        # In units of the columns' share, so that equal shares cost no product.
        unit, ratio = 1 - ctx.share, ctx.share / (1 - ctx.share)
        by_row, by_column = torch.where(norms == torch.inf, 0.0, (tiles.own - norms).exp() - 1)
        pull = ratio * by_row + by_column
        with torch.autocast(partner.device.type, enabled=False):
            to_a, to_b = torch.empty_like(tiles.a), torch.zeros_like(tiles.b)
            for rows, entries in tiles.made():
                weights = tiles.softmaxes(entries, of_rows[rows, None], of_columns, ratio)
                at = tiles.paired(rows)
                weights[at] = pull[rows][at[0]]
                torch.mm(weights, tiles.b, out=to_a[rows])
                to_b.addmm_(weights.T, tiles.left(rows))

            # Through the lengths: what lies along a vector does not turn it.
            above = gradients[0] * unit
            along_a = torch.einsum("nd,nd->n", to_a, tiles.a)[:, None] / tiles.length
            to_scale = above * along_a.sum()
            to_a.addcmul_(tiles.a, along_a / tiles.length, value=-1).mul_(above * scale / tiles.length)
            along_b = torch.einsum("nd,nd->n", to_b, tiles.b)[:, None]
            to_b.addcmul_(tiles.b, along_b, value=-1).mul_(above / tiles.length_b)
        return to_a, to_b, to_scale, None, None, None, None


class _Tiles:
    """Rows, and their logits with -inf where a pair is no negative.

    Attributes:
        own: (Na,) the logit of each row and its partner, once all tiles were made.
        exponential: tiles hold exp(logit - scale), not the logit. measured: all tiles were made once.
        row_highest: (Na,) the highest logit of a negative of each row, and highest: (Nb,) of each column, the lowest number
            there is for none, once all tiles were made.
    """

    def __init__(self, a: Tensor, b: Tensor, scale: Tensor, partner: Tensor, excluded: Excluded | None) -> None:
        self.a, self.scale, self.partner, self.excluded = a, scale, partner, excluded
        self.length, self.length_b = (
            torch.linalg.vector_norm(side, dim=1, keepdim=True).clamp(min=SHORTEST) for side in (a, b)
        )
        self.b = b / self.length_b
        self.own = a.new_zeros(len(a))
        self.exponential, self.measured = bool(scale <= ONE_MEASURE), False
        # -inf - -inf is NaN: a row of nothing but -inf is measured from the lowest number there is.
        self.lowest = torch.finfo(a.dtype).min
        self.row_highest, self.highest = a.new_empty(len(a)), b.new_full((len(b),), self.lowest)
        self.kept: dict[int, Tensor] = {}

    def left(self, rows: slice) -> Tensor:
        """scale * a / |a|"""
        return self.a[rows] * (self.scale / self.length[rows])

    def paired(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Where in a tile the partners are."""
        mine = self.partner[rows]
        at = (mine >= 0).nonzero().squeeze(1)
        return at, mine[at]

    def made(self, *, keep: bool = False) -> Iterator[tuple[slice, Tensor]]:
        """Each tile once, not to be changed; the first ones are kept within `KEPT` if asked for."""
        room = KEPT if keep else 0
        for rows in tiles_of(len(self.a), len(self.b)):
            entries = self.kept[rows.start] if rows.start in self.kept else self._make(rows)
            if entries.numel() <= room:
                room -= entries.numel()
                self.kept[rows.start] = entries
            yield rows, entries

    def softmaxes(self, entries: Tensor, of_rows: Tensor, of_columns: Tensor, ratio: float) -> Tensor:
        """ratio * softmax along the rows + softmax along the columns, of a tile and the normalisers (rows, 1) and (Nb,)."""
        if self.exponential:
            of_both = torch.add((self.scale - of_rows).exp() * ratio, (self.scale - of_columns).exp())
            return of_both.mul_(entries)
        weights = (entries - of_rows).exp_()
        if ratio != 1:
            weights *= ratio
        return weights.add_((entries - of_columns).exp_())

    def _make(self, rows: slice) -> Tensor:
        logits = self.left(rows) @ self.b.T
        at = self.paired(rows)
        self.own[rows][at[0]] = logits[at]
        if self.excluded is not None:
            logits.masked_fill_(self.excluded(rows), -torch.inf)
        logits[at] = -torch.inf
        if not self.measured:
            self.row_highest[rows] = logits.amax(1).clamp(min=self.lowest)
            self.highest = torch.maximum(self.highest, logits.amax(0))
        return logits.sub_(self.scale).exp_() if self.exponential else logits


def _normalisers(tiles: _Tiles, keep: bool) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Of the rows and of the columns: the highest logit of a negative, and the logsumexp of all, -inf where there is none."""
    row_sum, total = tiles.a.new_empty(len(tiles.a)), tiles.b.new_zeros(len(tiles.b))
    before = tiles.highest
    for rows, entries in tiles.made(keep=keep):
        if tiles.exponential:
            row_sum[rows] = entries.sum(1)
            total += entries.sum(0)
            continue
        row_sum[rows] = (entries - tiles.row_highest[rows, None]).exp_().sum(1)
        total = total * (before - tiles.highest).exp() + (entries - tiles.highest).exp_().sum(0)
        before = tiles.highest
    tiles.measured = True
    of_rows, of_columns = (tiles.scale,) * 2 if tiles.exponential else (tiles.row_highest, tiles.highest)
    return (tiles.row_highest, row_sum.log() + of_rows), (tiles.highest, total.log() + of_columns)
