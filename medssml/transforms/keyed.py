"""The random state of a MONAI `Compose` as a function of one number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from monai.transforms import Compose, Randomizable
from monai.utils.misc import MAX_SEED


class Keyed:
    """`compose.set_random_state(seed=seed)`, number for number, at a twentieth of its cost.

    MONAI makes a new generator for every random transform and for those inside it, each of which first asks the system for
    entropy: 0.1 ms each, more than a small crop costs. Here the generators that are there are seeded again.

    Args:
        compose: nested as it may be. Its transforms may share MONAI's class-level generator: from now on none does.
    """

    def __init__(self, compose: Compose) -> None:
        compose.set_random_state(seed=0)
        self._own = compose.R
        self._parts = [_part(step) for step in compose.transforms if isinstance(step, Randomizable)]

    def __call__(self, seed: int) -> None:
        """Sets the state of all transforms."""
        self._own.seed(int(np.int64(seed) % MAX_SEED))
        for part in self._parts:
            inner = int(self._own.randint(MAX_SEED, dtype="uint32"))
            if isinstance(part, Keyed):
                part(inner)
            else:
                for state in part:
                    state.seed(inner % MAX_SEED)


def _part(step: Randomizable) -> Keyed | list[np.random.RandomState]:
    return Keyed(step) if isinstance(step, Compose) else list(_states(step, set()))


def _states(value: Any, seen: set[int]) -> Iterator[np.random.RandomState]:
    """The generators of a transform and of the transforms that it is made of."""
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from _states(inner, seen)
    elif isinstance(value, Randomizable) and id(value) not in seen:
        seen.add(id(value))
        if "R" in vars(value):
            yield value.R
        for inner in vars(value).values():
            yield from _states(inner, seen)
