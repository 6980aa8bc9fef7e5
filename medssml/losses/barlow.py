"""The cross-correlation of two sides of the same things, and how far it is from the identity.

Reference: [1] Zbontar et al., Barlow Twins: self-supervised learning via redundancy reduction, ICML 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Added to a feature's variance, as batch normalisation does.
EPSILON = 1e-5


def cross_correlation(a: Tensor, b: Tensor) -> Tensor:
    """(D, E) correlations over the rows of the features of `a` (n, D) with those of `b` (n, E); n at least 2.

    A feature that does not vary correlates with nothing.

    Returns:
        in float32 or better.
    """
    dtype = torch.promote_types(a.dtype, torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        first, second = (_standardised(part.to(dtype)) for part in (a, b))
        return first.T @ second / len(a)


def redundancy(correlation: Tensor, *, off_diagonal: float) -> Tensor:
    """sum over d of (1 - C_dd)^2 + off_diagonal * sum over d != e of C_de^2, of C (D, D)."""
    diagonal = correlation.diagonal()
    others = correlation.square().sum() - diagonal.square().sum()
    return (1 - diagonal).square().sum() + off_diagonal * others


def _standardised(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.var(0, unbiased=False) + EPSILON).sqrt()
