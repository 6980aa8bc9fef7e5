"""Self-distillation: a student's distribution over prototypes against a teacher's, centred and sharpened.

Reference: [1] Caron et al., Emerging properties in self-supervised vision transformers, ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def centred_and_sharpened(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """(n, K) softmax((g - c) / t) of a teacher's logits g (n, K) and their centre c (K,): the targets, without gradient."""
    return ((logits.detach() - centre) / temperature).softmax(1)


def mean_over_pairs(targets: Sequence[Tensor], answers: Sequence[Tensor], temperature: float) -> Tensor:
    """(n,) mean over all pairs of different looks of  -sum over prototypes of  target * log softmax(answer / t).

    Args:
        targets: the teacher's (n, K) distributions of the first looks.
        answers: the student's (n, K) logits of these looks, in the same order, and of further ones.
    """
    logs = [(answer / temperature).log_softmax(1) for answer in answers]
    pairs = [-(p * q).sum(1) for i, p in enumerate(targets) for j, q in enumerate(logs) if i != j]
    return torch.stack(pairs).mean(0)
