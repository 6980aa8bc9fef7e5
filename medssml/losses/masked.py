"""Losses on masked tokens only.

Reference: [1] He et al., Masked autoencoders are scalable vision learners, CVPR 2022: targets normalised per patch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def normalise_patches(patches: Tensor) -> Tensor:
    """Each patch of (..., P) with mean 0 and variance 1; a flat patch becomes 0."""
    mean = patches.mean(-1, keepdim=True)
    variance = patches.var(-1, keepdim=True, correction=0)
    return (patches - mean) / (variance + 1e-6).sqrt()


def masked_mse(predicted: Tensor, target: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error of the masked tokens.

    Args:
        predicted: (n, N, P). target: (n, N, P). masked: (n, N) bool, True where a token was hidden and is real.

    Returns:
        sum over masked tokens of the mean over P, and the number of these tokens. Unmasked tokens have no gradient,
        whatever they hold.
    """
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    error = (predicted[masked].to(dtype) - target[masked].to(dtype)).square().mean(-1).sum()
    return error, masked.sum()
