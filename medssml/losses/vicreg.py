"""Variance, invariance and covariance of two looks at the same things.

Reference: [1] Bardes, Ponce, LeCun, VICReg: variance-invariance-covariance regularization for self-supervised learning,
ICLR 2022.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class VICRegTerms(NamedTuple):
    """invariance, variance, covariance: () each, as the published code counts them; spread: () mean standard deviation."""

    invariance: Tensor
    variance: Tensor
    covariance: Tensor
    spread: Tensor


def vicreg_terms(a: Tensor, b: Tensor) -> VICRegTerms:
    """The three terms of two looks `a` and `b`, (n, D) each, n at least 2, in float32 or better.

    The variance term is the mean over the two looks, the covariance term their sum: the published code, not equation 6,
    which adds up both.
    """
    dtype = torch.promote_types(a.dtype, torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        a, b = a.to(dtype), b.to(dtype)
        spreads = standard_deviations(a), standard_deviations(b)
        return VICRegTerms(
            invariance=F.mse_loss(a, b),
            variance=sum((1 - spread).relu().mean() for spread in spreads) / 2,  # type: ignore[arg-type]
            covariance=covariance(a) + covariance(b),
            spread=torch.stack(spreads).detach().mean(),
        )


def standard_deviations(z: Tensor) -> Tensor:
    """(D,) of z (n, D), bounded below so that a feature that has collapsed has a gradient."""
    return (z.var(0) + 1e-4).sqrt()


def covariance(z: Tensor) -> Tensor:
    """() sum of the squared covariances of different features of z (n, D), over D."""
    centred = z - z.mean(0)
    matrix = centred.T @ centred / (len(z) - 1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / z.shape[1]
