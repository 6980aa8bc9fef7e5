"""Random numbers that belong to a study: the same whatever the batch around it, its order, the worker or the rank."""

from __future__ import annotations

import torch
from torch import Tensor

from medssml.randomness import hash64, mix


def uniform(keys: Tensor, size: int, purpose: str, *, seed: int = 0) -> Tensor:
    """Uniform numbers in [0, 1) for each study.

    Args:
        keys: (n,) int64, one seed per study.
        size: how many numbers.
        purpose: what they are for; different purposes get independent numbers.
        seed: draws again, for the same study and purpose.

    Returns:
        (n, size) float32 on the device of `keys`. The first numbers do not depend on `size`.
    """
    salt = hash64(purpose)
    generator = torch.Generator()
    rows = []
    for key in keys.tolist():
        generator.manual_seed(mix(key, salt, seed))
        rows.append(_prefix_stable(size, generator))
    drawn = torch.stack(rows) if rows else torch.empty(0, size)
    return drawn.to(keys.device)


def _prefix_stable(size: int, generator: torch.Generator) -> Tensor:
    # torch.rand draws differently from 16 numbers on (a vectorised path): always take that path, in whole blocks.
    blocks = -(-max(size, 1) // 16)
    return torch.rand(blocks * 16, generator=generator)[:size]


def random_ranks(noise: Tensor, real: Tensor) -> Tensor:
    """The place of each real token in a random order of its study's real tokens.

    The draw belongs to the j-th real token, so padding, which depends on the other studies, changes nothing.

    Args:
        noise: (n, N) uniform numbers. real: (n, N) bool.

    Returns:
        (n, N) int64: 0 .. (number of real tokens - 1) on real tokens, and from there on for the rest.
    """
    nth = (real.cumsum(1) - 1).clamp(min=0)
    score = noise.gather(1, nth).masked_fill(~real, 2.0)
    return score.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
