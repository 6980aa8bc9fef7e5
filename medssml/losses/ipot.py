"""Optimal transport between two sets of tokens by inexact proximal steps: words to regions.

References: [1] Xie et al., A fast proximal point method for computing exact Wasserstein distance, UAI 2019 (IPOT).
[2] Chen et al., UNITER: universal image-text representation learning, ECCV 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ipot(cost: Tensor, rows: Tensor, columns: Tensor, *, beta: float = 0.5, iterations: int = 50) -> Tensor:
    """The plans between uniform masses on real rows and real columns that cost least.

    Unlike Sinkhorn's iterations at a fixed entropy they go to the plan without one. What is not real is given nothing.

    Args:
        cost: (n, T, R). rows: (n, T) bool. columns: (n, R) bool; of both a plan has at least one True, or is 0.
        beta: the larger, the slower and the surer. iterations: 0.5 and 50 as in UNITER.

    Returns:
        (n, T, R), in float32 or better, without gradient.
    """
    real = rows[:, :, None] & columns[:, None, :]
    wide = cost.detach().to(torch.promote_types(cost.dtype, torch.float32))
    kernel = torch.where(real, (-wide / beta).exp(), 0.0)
    mass_rows, mass_columns = (m.to(kernel.dtype) / m.sum(1, keepdim=True).clamp(min=1) for m in (rows, columns))
    plan, right = real.to(kernel.dtype), mass_columns
    with torch.autocast(cost.device.type, enabled=False):
        for _ in range(iterations):
            step = kernel * plan
            left = _divided(mass_rows, torch.einsum("ntr,nr->nt", step, right))
            right = _divided(mass_columns, torch.einsum("ntr,nt->nr", step, left))
            plan = left[:, :, None] * step * right[:, None, :]
    return plan


def _divided(mass: Tensor, by: Tensor) -> Tensor:
    """0 where there is no mass, or nothing to divide by."""
    there = (mass > 0) & (by > 0)
    return torch.where(there, mass / torch.where(there, by, 1.0), 0.0)
