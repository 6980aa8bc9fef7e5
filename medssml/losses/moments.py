"""How far two sets of vectors are from one distribution, where nobody says which vector belongs to which.

Reference: [1] Gretton et al., A kernel two-sample test, JMLR 2012; several bandwidths as Long et al., ICML 2015.
[2] Sun, Saenko, Deep CORAL, ECCV workshops 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Bandwidths of the kernels, as multiples of the mean squared distance.
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


def mmd(x: Tensor, y: Tensor) -> Tensor:
    """Squared maximum mean discrepancy: mean k(x, x') + mean k(y, y') - 2 mean k(x, y), at least 0, over all pairs.

    k is the mean of Gaussian kernels exp(-|a - b|^2 / (s v)), v the mean squared distance of all vectors, without gradient.

    Args:
        x: (n, D). y: (m, D); over all ranks.

    Returns:
        () in float32 or better.
    """
    both = torch.cat([x, y]).to(torch.promote_types(x.dtype, torch.float32))
    squared = (both[:, None] - both[None]).square().sum(-1)
    count = len(both)
    spread = (squared.detach().sum() / max(1, count * (count - 1))).clamp(min=torch.finfo(squared.dtype).tiny)
    kernel = torch.stack([(-squared / (s * spread)).exp() for s in BANDWIDTHS]).mean(0)
    n = len(x)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def coral(x: Tensor, y: Tensor) -> Tensor:
    """|C_x - C_y|^2 / (4 D^2) of the covariances: 0 where both vary alike, wherever they lie.

    Args:
        x: (n, D). y: (m, D); two vectors or more of each, over all ranks.

    Returns:
        () in float32 or better.
    """
    first, second = (_covariance(part.to(torch.promote_types(part.dtype, torch.float32))) for part in (x, y))
    return (first - second).square().sum() / (4 * x.shape[1] ** 2)


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)
