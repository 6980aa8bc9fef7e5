"""Pairs of modalities: which of them an objective is about, and who belongs to whom among all studies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from medssml.losses import Alike
from medssml.objectives.step import Step

#: Two modalities, in the order in which they were named, or that of the model.
Pair = tuple[str, str]


class Sides(NamedTuple):
    """The rows of two modalities, of all ranks.

    studies: positions of the rows among all studies, (Na,) and (Nb,). partner: (Na,) int64 row of the second modality that is
    the same study, -1 for none. alike: which rows are no negatives: of one subject, or with an identical input.
    """

    studies: tuple[Tensor, Tensor]
    partner: Tensor
    alike: Alike

    @property
    def match(self) -> Tensor:
        """(Na, Nb) bool, the table of `partner`."""
        return self.studies[0][:, None] == self.studies[1][None, :]

    @property
    def negative(self) -> Tensor:
        """(Na, Nb) bool, what is certainly no match."""
        return ~(self.match | self.alike.rows(slice(None)))


def sides_of(step: Step, pair: Pair) -> Sides:
    """Who belongs to whom, the same on every rank."""
    everyone = step.everyone
    columns = [step.model.modalities.index(name) for name in pair]
    a, b = (everyone.rows(column) for column in columns)
    has = everyone.present[:, columns[1]]
    partner = torch.where(has, has.cumsum(0) - 1, -1)[a]
    groups = everyone.groups(columns)
    return Sides((a, b), partner, Alike(groups[a], groups[b]))


def pairs_of(modalities: Sequence[str], wanted: Sequence[str] | None, owner: str) -> tuple[Pair, ...]:
    """Those named, such as "ct+report", or all of them, without repetition.

    Raises:
        ValueError: a name that is no pair of `modalities`, or no pair at all.
    """
    every = tuple(combinations(modalities, 2))
    if wanted is None:
        chosen = every
    else:
        known = {"+".join(pair): pair for one in every for pair in (one, one[::-1])}
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise ValueError(f"{owner}: pairs {unknown}; known: {', '.join('+'.join(p) for p in every)}")
        # As it was written first, as one direction may count more than the other.
        once: dict[frozenset[str], Pair] = {}
        for name in wanted:
            once.setdefault(frozenset(known[name]), known[name])
        chosen = tuple(once.values())
    if not chosen:
        raise ValueError(f"{owner} needs a pair of modalities; the model has {list(modalities)}")
    return chosen


def modalities_of(pairs: Sequence[Pair], modalities: Sequence[str]) -> list[str]:
    """Those of `modalities` that are in a pair, in their order."""
    return [name for name in modalities if any(name in pair for pair in pairs)]
