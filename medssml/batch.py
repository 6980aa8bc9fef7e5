"""What travels between the parts: a batch of studies, of which each modality holds only the rows that exist.

The page to read first. `Batch.inputs[m]` has `n_m` rows, one for every study that has modality `m`; `Batch.present`
says which studies these are. No part of medssml ever sees a stand-in for something that is absent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

Inputs: TypeAlias = Tensor | dict[str, Tensor]


class Encoded(NamedTuple):
    """One modality of the studies that have it.

    tokens: (n_m, N, D). mask: (n_m, N) bool, True where a token is real. pooled: (n_m, D). layers: outputs of the last
    blocks that were asked for, each (n_m, N', D'), the last one at the end; none as a rule.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor
    layers: tuple[Tensor, ...] = ()

    def each(self, change: Callable[[Tensor], Tensor]) -> Encoded:
        """The same after `change` of every tensor."""
        layers = tuple(change(layer) for layer in self.layers)
        return Encoded(change(self.tokens), change(self.mask), change(self.pooled), layers)

    def select(self, rows: Tensor) -> Encoded:
        """The rows at `rows`, an index (k,) or a bool mask (n_m,)."""
        return self.each(lambda part: part[rows])


class Fused(NamedTuple):
    """All that is present of each study, in one place.

    tokens: (B, N, D). mask: (B, N) bool, True where a token is real. pooled: (B, D). parts: modality -> its tokens
    (n_m, N_m, D) after the fusion, and the vector that fusion was given as its `pooled`; a fusion that mixes no tokens
    leaves it to the model, which puts what was given. extra: name -> what a fusion keeps for losses of its own. present:
    (B, M) bool, what was seen, from the model.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor
    parts: dict[str, Encoded] = {}
    extra: dict[str, Tensor] = {}
    present: Tensor | None = None


def row_count(inputs: Inputs) -> int:
    """n of a modality's inputs (n, ...)."""
    return len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)


def select_rows(inputs: Inputs, rows: Tensor | slice) -> Inputs:
    """The rows of one modality's inputs at `rows`: an index (k,), a bool mask (n_m,) or a slice."""
    if isinstance(inputs, dict):
        return {name: value[rows] for name, value in inputs.items()}
    return inputs[rows]


def _move(inputs: Inputs, device: torch.device | str) -> Inputs:
    if isinstance(inputs, dict):
        return {name: value.to(device, non_blocking=True) for name, value in inputs.items()}
    return inputs.to(device, non_blocking=True)


@dataclass(frozen=True)
class Batch:
    """B studies, of which any modality may be absent.

    Args:
        inputs: modality -> tensor (n_m, ...) or dict of such tensors; a modality that no study has is left out.
        present: (B, M) bool; column j is `modalities[j]`.
        modalities: names, in the order of the manifest's columns.
        study_id: (B) names of the studies.
        subject: (B,) int64 hash of the subject id: equal numbers are the same person.
        key: (B,) int64 seed of each study's own randomness, f(seed, epoch, sample): what a mask is drawn from, so that
            it does not depend on the other studies of the batch, on the worker or on the rank.
        targets: task -> (B,) float; NaN where unlabelled. Class targets hold the class index.
        content: modality -> (n_m,) int64 hash of the prepared input: equal numbers are duplicates.
        index: (B,) int64 position of each study among those of its loader, for state that is kept per study; -1 for none.
        views: further looks at the same studies, each augmented by itself; the batch is the first one.
    """

    inputs: dict[str, Inputs]
    present: Tensor
    modalities: tuple[str, ...]
    study_id: tuple[str, ...]
    subject: Tensor
    key: Tensor
    targets: dict[str, Tensor] = field(default_factory=dict)
    content: dict[str, Tensor] = field(default_factory=dict)
    index: Tensor | None = None
    views: tuple[Batch, ...] = ()

    def __post_init__(self) -> None:
        if self.present.shape != (len(self.study_id), len(self.modalities)):
            raise ValueError(
                f"present has shape {tuple(self.present.shape)}, expected "
                f"({len(self.study_id)} studies, {len(self.modalities)} modalities)"
            )
        unknown = set(self.inputs) - set(self.modalities)
        if unknown:
            raise KeyError(f"inputs of unknown modalities {sorted(unknown)}; known: {list(self.modalities)}")

    def __len__(self) -> int:
        return len(self.study_id)

    def column(self, modality: str) -> int:
        """The column of `present` that is `modality`."""
        if modality not in self.modalities:
            raise KeyError(f"no modality {modality!r}; this batch knows {list(self.modalities)}")
        return self.modalities.index(modality)

    def rows(self, modality: str) -> Tensor:
        """(n_m,) positions in the batch of the studies that have `modality`, ascending."""
        return self.present[:, self.column(modality)].nonzero().squeeze(1)

    def without(self, *modalities: str) -> Batch:
        """The same studies, had they not had `modalities`: an intervention, not a copy of the data."""
        present = self.present.clone()
        for modality in modalities:
            present[:, self.column(modality)] = False
        inputs = {name: value for name, value in self.inputs.items() if name not in modalities}
        content = {name: value for name, value in self.content.items() if name not in modalities}
        views = tuple(view.without(*modalities) for view in self.views)
        return replace(self, inputs=inputs, present=present, content=content, views=views)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on `device`."""
        return replace(
            self,
            inputs={name: _move(value, device) for name, value in self.inputs.items()},
            present=self.present.to(device),
            subject=self.subject.to(device),
            key=self.key.to(device),
            targets={name: value.to(device) for name, value in self.targets.items()},
            content={name: value.to(device) for name, value in self.content.items()},
            index=None if self.index is None else self.index.to(device),
            views=tuple(view.to(device) for view in self.views),
        )


def made_up(
    encoded: dict[str, Encoded], present: Tensor, source: Tensor, modalities: tuple[str, ...]
) -> tuple[dict[str, Encoded], Tensor]:
    """Studies made of parts of others: what fusion is given for each; no encoder runs again.

    Args:
        encoded: modality -> the rows of `present`.
        present: (B, M) bool, the studies that `encoded` holds.
        source: (K, M) int64, the study that each modality of a made-up study is taken from; -1 for none.
        modalities: names of the columns.

    Returns:
        modality -> rows of the K studies that have it, a modality without rows left out, and (K, M) bool, who has what.

    Raises:
        ValueError: a source does not have the modality.
    """
    out: dict[str, Encoded] = {}
    within = source >= 0
    for column, modality in enumerate(modalities):
        origin = source[within[:, column], column]
        if len(origin) == 0:
            continue
        has = present[:, column]
        row = torch.where(has, has.cumsum(0) - 1, -1)[origin]
        if modality not in encoded or bool((row < 0).any()):
            raise ValueError(f"{modality} is taken from a study that does not have it")
        part = encoded[modality]
        same = len(row) == len(part.pooled) and bool((row == torch.arange(len(row), device=row.device)).all())
        out[modality] = part if same else part.select(row)
    return out, within


def restrict(
    encoded: dict[str, Encoded], present: Tensor, within: Tensor, modalities: tuple[str, ...]
) -> dict[str, Encoded]:
    """What remains of `encoded` when only `within` may be seen: no encoder runs again.

    Args:
        encoded: modality -> the rows of `present`.
        present: (B, M) bool, the studies that `encoded` holds.
        within: (B, M) bool, a part of `present`.
        modalities: names of the columns.

    Returns:
        modality -> the rows of `within`; a modality without rows is left out.

    Raises:
        ValueError: `within` asks for a modality that is not present.
    """
    if bool((within & ~present).any()):
        raise ValueError("`within` keeps a modality that is not present; intersect it with `present` first")
    own = torch.arange(len(present), device=present.device)[:, None]
    return made_up(encoded, present, torch.where(within, own, -1), modalities)[0]
