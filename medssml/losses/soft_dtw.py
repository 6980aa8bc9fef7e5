"""Soft dynamic time warping: how well two sequences fit when each may be stretched, differentiable.

Reference: [1] Cuturi, Blondel, Soft-DTW: a differentiable loss function for time-series, ICML 2017.
[2] Blondel, Mensch, Vert, Differentiable divergences between time series, AISTATS 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: In the place of infinity, whose gradient is NaN.
FAR = 1e10


def soft_dtw(cost: Tensor, *, gamma: float = 1.0, lengths: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """R_ij = cost_ij + softmin(R_i-1,j-1, R_i-1,j, R_i,j-1), of which the last; softmin is -gamma log sum exp(-r / gamma).

    Neither a distance nor positive, and not smallest where the sequences are equal: see `soft_dtw_divergence`.

    Args:
        cost: (B, N, M) of matching element i of one sequence with element j of the other; finite in the padding too.
        gamma: the smaller, the nearer to dynamic time warping.
        lengths: (B,) and (B,) elements of each sequence, at least 1, where they are padded at the end.

    Returns:
        (B,) in float32 or better.

    Raises:
        ValueError: gamma is not positive, or a sequence is empty.
    """
    if not gamma > 0:
        raise ValueError(f"gamma is {gamma}; expected a positive number")
    batch, n, m = cost.shape
    if n == 0 or m == 0:
        raise ValueError(f"sequences of {n} and {m} elements; expected at least one of each")
    cost = cost.to(torch.promote_types(cost.dtype, torch.float32))
    row = torch.arange(n, device=cost.device)
    edge = cost.new_full((batch, 1), FAR)

    # Diagonal by diagonal, all of whose cells are independent; row i of a diagonal stands at i + 1, what lies before at 0.
    last, before = cost.new_full((batch, n + 1), FAR), cost.new_full((batch, n + 1), FAR)
    before = torch.cat([torch.zeros_like(edge), before[:, 1:]], dim=1)
    diagonals = []
    for diagonal in range(n + m - 1):
        column = diagonal - row
        here = cost[:, row, column.clamp(0, m - 1)]
        came = torch.stack([before[:, :-1], last[:, :-1], last[:, 1:]])
        found = here - gamma * torch.logsumexp(-came / gamma, dim=0)
        found = torch.where((column >= 0) & (column < m), found, FAR)
        diagonals.append(found)
        before, last = last, torch.cat([edge, found], dim=1)

    table = torch.stack(diagonals, dim=1)
    if lengths is None:
        return table[:, -1, -1]
    rows, columns = lengths
    return table[torch.arange(batch, device=cost.device), rows + columns - 2, rows - 1]


def soft_dtw_divergence(
    x: Tensor, y: Tensor, *, gamma: float = 1.0, lengths: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """sdtw(x, y) - (sdtw(x, x) + sdtw(y, y)) / 2 at squared Euclidean costs: at least 0, and 0 where x = y.

    Args:
        x: (B, N, D). y: (B, M, D). gamma, lengths: see `soft_dtw`.

    Returns:
        (B,) in float32 or better.
    """
    own, other = (None, None) if lengths is None else ((lengths[0],) * 2, (lengths[1],) * 2)
    across = soft_dtw(_squared(x, y), gamma=gamma, lengths=lengths)
    within = soft_dtw(_squared(x, x), gamma=gamma, lengths=own) + soft_dtw(_squared(y, y), gamma=gamma, lengths=other)
    return across - within / 2


def _squared(x: Tensor, y: Tensor) -> Tensor:
    return (x[:, :, None] - y[:, None]).square().sum(-1)
