"""Losses that do not know how many ranks there are: the same loss and the same gradients for 1 rank or many.

With missing modalities the ranks hold different numbers of rows and may lack a modality altogether, so a mean over ranks
of per-rank means is a different loss. Here every rank computes the loss of the whole batch, and the gradients are scaled
so that what DistributedDataParallel does next, the mean over ranks, gives exactly the gradient of that loss. No backward
pass calls a collective: ranks whose graphs differ can not wait for each other. Without torch.distributed each function
is the identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _GatherRows(torch.autograd.Function):
    """Forward: the rows of all ranks. Backward: this rank's rows, times the number of ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        counts = _row_counts(rows)
        ctx.start = sum(counts[: dist.get_rank()])
        ctx.length = rows.shape[0]

        # Collectives want equal shapes: fill up to the longest, cut afterwards.
        longest = max(counts)
        filled = rows.new_zeros(longest, *rows.shape[1:])
        filled[: rows.shape[0]] = rows.detach()
        gathered = [torch.empty_like(filled) for _ in counts]
        dist.all_gather(gathered, filled)
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].narrow(0, ctx.start, ctx.length) * world_size()


class _GlobalSum(torch.autograd.Function):
    """Forward: sum over ranks. Backward: the gradient, times the number of ranks."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * world_size()


def _row_counts(rows: Tensor) -> list[int]:
    mine = torch.tensor([rows.shape[0]], device=rows.device)
    counts = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(counts, mine)
    return torch.cat(counts).tolist()


def all_gather_rows(rows: Tensor) -> Tensor:
    """The rows of all ranks, in the order of the ranks; ranks may hold different numbers of rows, or none.

    Every rank must call this in the same order, and compute the whole loss from what it returns.

    Args:
        rows: (n, ...) of this rank; n differs between ranks, the rest of the shape does not.

    Returns:
        (sum of n, ...), with gradients to this rank's rows.
    """
    return rows if world_size() == 1 else _GatherRows.apply(rows)


def global_sum(value: Tensor) -> Tensor:
    """The sum of `value`, of any one shape, over all ranks, with gradients to this rank's share."""
    return value if world_size() == 1 else _GlobalSum.apply(value)


def take_part(parameters: Iterable[Tensor]) -> Tensor:
    """A zero that depends on every one of `parameters`: a scalar whose gradient is zero, even where a weight is NaN.

    Added to the loss it lets a rank without a modality take part in that modality's gradient, which
    DistributedDataParallel waits for.
    """
    return torch.stack([parameter.flatten()[:0].sum().float() for parameter in parameters]).sum()


def global_max(value: int, device: torch.device | str = "cpu") -> int:
    """The largest `value` of any rank."""
    if world_size() == 1:
        return value
    found = torch.tensor([value], device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return int(found)
