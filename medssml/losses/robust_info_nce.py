"""A contrast that does not believe every pair: RINCE, between InfoNCE and a loss in which wrong pairs cancel out.

Reference: [1] Chuang et al., Robust contrastive learning against noisy views, CVPR 2022, equation 4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medssml.losses.info_nce import InfoNCE


def robust_terms(logits: Tensor, match: Tensor, negative: Tensor, *, q: float, share_of_all: float) -> InfoNCE:
    """-exp(q s+) / q + (lambda (exp(s+) + sum of exp(s-)))^q / q for every row with a match and a negative, and their sum.

    Towards q = 0 it is InfoNCE plus log lambda; at q = 1 it is -(1 - lambda) exp(s+) + lambda sum of exp(s-), in which a wrong
    pair pulls as much as a right one pushes, so that wrong ones cancel out (a symmetric loss).

    Args:
        logits: (Na, Nb), s; best at most 0, so that no exponential is large.
        match: (Na, Nb) bool, at most one True in a row.
        negative: (Na, Nb) bool, the candidates that are certainly no match.
        q: above 0, at most 1.
        share_of_all: lambda, above 0, at most 1.
    """
    rows = (match.any(1) & negative.any(1)).nonzero().squeeze(1)
    logits, match, negative = logits[rows], match[rows], negative[rows]

    own = logits.masked_fill(~match, 0).sum(1)
    others = logits.masked_fill(~negative, -torch.inf)
    every = torch.logsumexp(torch.cat([own[:, None], others], dim=1), dim=1) + math.log(share_of_all)

    # The difference of two powers that are both near 1 where q is small.
    total = ((torch.expm1(q * every) - torch.expm1(q * own)) / q).sum()
    nearest = others.detach().amax(1) if len(rows) else own.detach()
    return InfoNCE(total, torch.tensor(len(rows), device=logits.device), (own.detach() > nearest).sum())
