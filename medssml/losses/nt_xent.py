"""Contrast of two looks at the same things.

Reference: [1] Chen et al., A simple framework for contrastive learning of visual representations, ICML 2020, eq. 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medssml.losses.info_nce import InfoNCE, cosine_logits, cross_entropy_terms


def nt_xent(a: Tensor, b: Tensor, *, scale: Tensor | float, exclude: Tensor | None = None) -> InfoNCE:
    """Each of the 2 n vectors finds its other look among the 2 n - 1 others.

    Args:
        a, b: (n, D) the two looks, row by row of the same thing.
        scale: 1 / temperature.
        exclude: (n, n) bool, things that are no negatives of each other: duplicates, studies of one subject.
    """
    n = len(a)
    own = torch.eye(n, dtype=torch.bool, device=a.device)
    alike = own if exclude is None else own | exclude
    match = torch.cat([torch.cat([~own & own, own], 1), torch.cat([own, ~own & own], 1)])
    negative = ~alike.repeat(2, 2)
    both = torch.cat([a, b])
    return cross_entropy_terms(cosine_logits(both, both, scale), match, negative)
