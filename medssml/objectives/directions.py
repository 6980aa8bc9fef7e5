"""From one modality to another: what methods that translate share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from medssml.config import LeftOut
from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.step import Step

Direction = tuple[str, str]


def all_directions(model: MultimodalModel, wanted: Sequence[str] | None, owner: str) -> tuple[Direction, ...]:
    """(from, to) of each of `wanted`, such as "ct->report"; of all ordered pairs of the model's modalities by default.

    Raises:
        ValueError: a direction that is not known, or none.
    """
    known = {f"{m}->{n}": (m, n) for m, n in permutations(model.modalities, 2)}
    names = list(known) if wanted is None else list(dict.fromkeys(wanted))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"{owner}: directions {unknown or names}; known: {', '.join(known) or 'none of one modality'}")
    return tuple(known[name] for name in names)


def restricted_directions(arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
    """The arguments with the directions that remain, see `Configured.restricted_to`."""
    if len(left) < 2:
        raise LeftOut("needs two modalities")
    if not arguments.get("directions"):
        return arguments
    kept = [name for name in arguments["directions"] if set(name.split("->")) <= set(left)]
    if not kept:
        raise LeftOut(f"needs {' or '.join(arguments['directions'])}")
    return {**arguments, "directions": kept}


def of_both(step: Step, answer: Step, direction: Direction) -> tuple[Tensor, Tensor] | None:
    """(n, D) pooled of the one modality by `step`, and of the other by `answer`, of this rank's studies that have both; None for
    no such study."""
    m, n = direction
    if m not in step.batch.inputs or n not in step.batch.inputs:
        return None
    first, second = (step.present[:, step.model.modalities.index(name)] for name in direction)
    if not bool((first & second).any()):
        return None
    return step.encoded[m].pooled[second[first]], answer.encoded[n].pooled[first[second]]


def count_of_both(step: Step, wanted: Sequence[Direction]) -> Tensor:
    """() how many studies of all ranks have both, over all directions."""
    column = {name: step.present[:, place] for place, name in enumerate(step.model.modalities)}
    return global_sum(torch.stack([(column[m] & column[n]).sum() for m, n in wanted]).sum())
