"""Keyed randomness: numbers that follow from a seed and from what they are for, and from nothing else.

f(seed, epoch, study) does not depend on the batch, the order, the worker, the rank or the machine, so a run that was
stopped continues as if it had not been, and two ranks draw what one would.
"""

from __future__ import annotations

import hashlib

_WORD = (1 << 64) - 1


def hash64(text: str, seed: int = 0) -> int:
    """A stable 64-bit hash of `text`: the same on every machine and in every run, unlike Python's own."""
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8, key=int(seed).to_bytes(8, "little", signed=True))
    return int.from_bytes(digest.digest(), "little")


def mix(*numbers: int) -> int:
    """A 63-bit hash of whole numbers, by rounds of splitmix64 [1]: a seed for numpy and for torch alike.

    [1] Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    state = 0
    for number in numbers:
        state = ((state ^ (number & _WORD)) + 0x9E3779B97F4A7C15) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return state >> 1


def study_key(seed: int, epoch: int, study_id: str, draw: int = 0) -> int:
    """Seed of one study in one epoch; `draw` counts its appearances where rare studies are shown more than once."""
    return mix(seed, epoch, hash64(study_id), draw)


def draw_seed(key: int, name: str, view: int = 0) -> int:
    """Seed of what `name` says, such as one modality's augmentation, in one look at a study; `view` numbers the looks."""
    return mix(key, hash64(name), view) if view else mix(key, hash64(name))
