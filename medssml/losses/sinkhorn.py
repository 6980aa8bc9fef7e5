"""Optimal transport with an entropy, by Sinkhorn's iterations: codes that use every prototype, pairs that nobody gave.

Reference: [1] Cuturi, Sinkhorn distances: lightspeed computation of optimal transport, NeurIPS 2013.
[2] Caron et al., Unsupervised learning of visual features by contrasting cluster assignments, NeurIPS 2020 (SwAV).
"""

from __future__ import annotations

import torch
from torch import Tensor


def transport(
    cost: Tensor, *, epsilon: float, iterations: int, rows: Tensor | None = None, columns: Tensor | None = None
) -> Tensor:
    """The plan P that minimises <P, cost> - epsilon H(P) with row sums `rows` and column sums `columns`.

    In logarithms, so that a small epsilon neither overflows nor divides 0 by 0. The last half-step is that of the rows: their
    sums are exact after any number of iterations, those of the columns only in the limit (after 3 they are off by some
    per cent). A row or column without mass gets none.

    Args:
        cost: (n, k), over all ranks: a plan of one rank's rows is another one.
        epsilon: weight of the entropy; the smaller, the harder the plan and the more iterations it takes.
        iterations: of columns, then rows.
        rows: (n,) sum 1; uniform by default. columns: (k,) sum 1; uniform by default.

    Returns:
        (n, k), in float32 or better, without gradient.

    Raises:
        ValueError: epsilon is not positive.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon is {epsilon}; expected a positive number")
    log = -cost.detach().to(torch.promote_types(cost.dtype, torch.float32)) / epsilon
    n, k = log.shape
    if n == 0 or k == 0:
        return torch.zeros_like(log)
    mass = log.new_full((n,), 1 / n) if rows is None else rows.to(log)
    wanted = log.new_full((k,), 1 / k) if columns is None else columns.to(log)
    log = torch.where((mass[:, None] > 0) & (wanted > 0), log, -torch.inf)
    for _ in range(iterations):
        log = log - _finite(log.logsumexp(0, keepdim=True)) + wanted.log()
        log = log - _finite(log.logsumexp(1, keepdim=True)) + mass.log()[:, None]
        log = log.nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    return log.exp()


def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3, columns: Tensor | None = None) -> Tensor:
    """(n, k) codes of n samples among k prototypes, which together use each prototype equally often.

    n times the plan of `transport` at the cost -scores: each code sums to 1 exactly.

    Args:
        scores: (n, k), such as cosines, of the samples of all ranks.
        epsilon, iterations: 0.05 and 3 as in SwAV.
        columns: (k,) share of each prototype; uniform by default.
    """
    return len(scores) * transport(-scores, epsilon=epsilon, iterations=iterations, columns=columns)


def _finite(value: Tensor) -> Tensor:
    """-inf as 0: what has no mass stays without."""
    return torch.where(value.isneginf(), 0.0, value)
