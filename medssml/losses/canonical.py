"""Canonical correlations of two sides of the same things.

References: [1] Hotelling, Relations between two sets of variates, Biometrika 1936. [2] Andrew, Arora, Bilmes, Livescu, Deep
canonical correlation analysis, ICML 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor


def canonical_correlations(a: Tensor, b: Tensor, *, regulariser: float = 0.0) -> Tensor:
    """(min(D, E),) correlations of `a` (n, D) with `b` (n, E), the largest first; n at least 2.

    They are the singular values of T = S_aa^(-1/2) S_ab S_bb^(-1/2), S_aa and S_bb with `regulariser` on their diagonal. Their
    sum, the nuclear norm of T, is the total correlation; the root of tr(T'T), which is found in its place in published
    code, is its Frobenius norm and another number. The roots are Cholesky's, which differ from the symmetric ones by
    rotations, that singular values do not see, and have a gradient where eigenvalues are equal.

    Returns:
        in float32 or better.
    """
    dtype = torch.promote_types(a.dtype, torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        # Whitening divides by what is small: float64 within, on few numbers.
        first, second = (part.double() - part.double().mean(0) for part in (a, b))
        scale = len(a) - 1
        roots = [torch.linalg.cholesky(_regularised(part.T @ part / scale, regulariser)) for part in (first, second)]
        left = torch.linalg.solve_triangular(roots[0], first.T @ second / scale, upper=False)
        whitened = torch.linalg.solve_triangular(roots[1], left.T, upper=False)
        return torch.linalg.svdvals(whitened).to(dtype)


def _regularised(covariance: Tensor, regulariser: float) -> Tensor:
    return covariance + regulariser * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
