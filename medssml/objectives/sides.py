"""Sides of a study that are compared: two modalities of it, or two looks at one modality."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from medssml.objectives.step import Step

#: What differs between the two sides of a pair.
Across = Literal["modalities", "looks", "both"]


class Side(NamedTuple):
    """One modality in one look."""

    look: int
    modality: str


def looks_for(across: Across) -> int:
    """How many looks at each study the pairs need."""
    return 1 if across == "modalities" else 2


def ordered_pairs(modalities: Sequence[str], across: Across, owner: str) -> list[tuple[Side, Side]]:
    """All pairs of sides in both orders: modalities within a look, looks at a modality, or either.

    Raises:
        ValueError: an unknown `across`, or no two sides.
    """
    if across not in ("modalities", "looks", "both"):
        raise ValueError(f"across is {across!r}; accepted: modalities, looks, both")
    sides = [Side(look, name) for look in range(looks_for(across)) for name in modalities]
    pairs = [pair for pair in permutations(sides, 2) if _differs(*pair, across)]
    if not pairs:
        raise ValueError(f"{owner} across modalities needs two; it has {list(modalities)}")
    return pairs


def rows_of_both(step: Step, a: Side, b: Side) -> tuple[Tensor, Tensor]:
    """Where the studies with both sides stand among those of each, of all ranks."""
    s, t = (step.everyone.present[:, step.model.modalities.index(side.modality)] for side in (a, b))
    both = s & t
    return both[s].nonzero().squeeze(1), both[t].nonzero().squeeze(1)


def count_of_both(step: Step, pairs: Sequence[tuple[Side, Side]]) -> Tensor:
    """() how many studies of all ranks have both sides of a pair, over all pairs."""
    return torch.tensor(sum(len(rows_of_both(step, *pair)[0]) for pair in pairs), device=step.present.device)


def _differs(a: Side, b: Side, across: str) -> bool:
    looks, modalities = a.look != b.look and a.modality == b.modality, a.look == b.look and a.modality != b.modality
    return {"modalities": modalities, "looks": looks, "both": looks or modalities}[across]
