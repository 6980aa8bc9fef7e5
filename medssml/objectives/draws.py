"""Random numbers that belong to a study: the same whatever the batch around it, its order, the worker or the rank."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_WORD = (1 << 64) - 1


def stable_hash(text: str) -> int:
    """A 64-bit number for `text`, the same in every process (Python's own `hash` is not)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mix(*numbers: int) -> int:
    """One 64-bit number from several (splitmix64's finaliser after each)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return state


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
    salt = stable_hash(purpose)
    generator = torch.Generator()
    rows = []
    for key in keys.tolist():
        generator.manual_seed(mix(key & _WORD, salt, seed & _WORD))
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
