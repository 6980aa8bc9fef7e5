"""Randomness of a study: a number that follows from the seed, the epoch and the study, and from nothing else.

The order of the batches, the worker, the rank and the other studies of a batch do not change it.
"""

from __future__ import annotations

import numpy as np

from medssml.manifest.splits import hash64

_MASK = (1 << 64) - 1


def mix(*numbers: int) -> int:
    """A 63-bit hash of whole numbers, by rounds of splitmix64 (Steele, Lea and Flood 2014)."""
    state = 0
    for number in numbers:
        state = (state ^ (number & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1


def study_key(seed: int, epoch: int, study_id: str, draw: int = 0) -> int:
    """Seed of one study in one epoch; `draw` counts its appearances where rare studies are shown more than once."""
    return mix(seed, epoch, hash64(study_id), draw)


def generator(key: int, name: str) -> np.random.Generator:
    """The generator that draws one modality's augmentation."""
    return np.random.default_rng([key, hash64(name)])
