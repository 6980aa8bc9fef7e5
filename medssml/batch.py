"""What travels between the parts: a batch of studies, of which each modality holds only the rows that exist.

The page to read first. `Batch.inputs[m]` has `n_m` rows, one for every study that has modality `m`; `Batch.present`
says which studies these are. No part of medssml ever sees a stand-in for something that is absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

Inputs: TypeAlias = Tensor | dict[str, Tensor]


class Encoded(NamedTuple):
    """One modality of the studies that have it.

    tokens: (n_m, N, D). mask: (n_m, N) bool, True where a token is real. pooled: (n_m, D).
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor

    def select(self, rows: Tensor) -> Encoded:
        """The rows at `rows`, an index (k,) or a bool mask (n_m,)."""
        return Encoded(self.tokens[rows], self.mask[rows], self.pooled[rows])


class Fused(NamedTuple):
    """All that is present of each study, in one place.

    tokens: (B, N, D). mask: (B, N) bool, True where a token is real. pooled: (B, D). own: (B, M, D) what fusion was given,
    the pooled vector of each modality, zeros where it is not seen; seen: (B, M) bool. Both None where no head reads them.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor
    own: Tensor | None = None
    seen: Tensor | None = None


def select_rows(inputs: Inputs, rows: Tensor) -> Inputs:
    """The rows of one modality's inputs at `rows`, an index (k,) or a bool mask (n_m,)."""
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
    """

    inputs: dict[str, Inputs]
    present: Tensor
    modalities: tuple[str, ...]
    study_id: tuple[str, ...]
    subject: Tensor
    key: Tensor
    targets: dict[str, Tensor] = field(default_factory=dict)
    content: dict[str, Tensor] = field(default_factory=dict)

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
        return replace(self, inputs=inputs, present=present, content=content)

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
        )


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
    out: dict[str, Encoded] = {}
    for column, modality in enumerate(modalities):
        if modality not in encoded:
            continue
        rows = within[present[:, column], column]
        if bool(rows.all()):
            out[modality] = encoded[modality]
        elif bool(rows.any()):
            out[modality] = encoded[modality].select(rows)
    return out
