"""A step of learning: one batch, one model, and what several objectives ask of them, computed once."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from medssml.batch import Batch, Encoded, Fused
from medssml.losses import all_gather_rows, same
from medssml.model import MultimodalModel


class Studies(NamedTuple):
    """What is known of the studies of all ranks, beside their tensors.

    subject: (B,) int64. present: (B, M) bool. content: (B, M) int64 hash of each input. hashed: (B, M) bool, where
    `content` says anything.
    """

    subject: Tensor
    present: Tensor
    content: Tensor
    hashed: Tensor

    def rows(self, column: int) -> Tensor:
        """(n_m,) positions of the studies that have the modality in `column`."""
        return self.present[:, column].nonzero().squeeze(1)

    def alike(self, a: Tensor, b: Tensor, columns: Iterable[int]) -> Tensor:
        """Which studies cannot be each other's negatives: of one subject, or with a duplicate in one of `columns`.

        Args:
            a: (Na,) positions. b: (Nb,) positions.

        Returns:
            (Na, Nb) bool.
        """
        found = same(self.subject[a], self.subject[b])
        for column in columns:
            known = self.hashed[a, column][:, None] & self.hashed[b, column][None, :]
            found = found | (known & same(self.content[a, column], self.content[b, column]))
        return found


class Step:
    """One batch seen by one model.

    Args:
        model: whose modalities are the columns from here on; what the batch has beyond them is left out.
        batch: of this rank.
        seed: draws other masks for the same studies.
    """

    def __init__(self, model: MultimodalModel, batch: Batch, *, seed: int = 0) -> None:
        self.model = model
        self.batch = model.align(batch)
        self.seed = seed
        self._gathered: dict[str, Tensor] = {}

    @property
    def present(self) -> Tensor:
        """(B, M) bool."""
        return self.batch.present

    @cached_property
    def encoded(self) -> dict[str, Encoded]:
        """Modality -> tokens and pooled of the studies that have it, in the width of the fusion."""
        return self.model.encode(self.batch)

    @cached_property
    def fused(self) -> Fused:
        """All that is present of each study."""
        return self.model.fuse(self.encoded, self.present)

    def pooled_of_all(self, modality: str) -> Tensor:
        """(n_m of all ranks, D) pooled of a modality, float32 or better; every rank asks for it, also one without rows.

        What is computed from it is computed by every rank in full: see `losses.gather`.
        """
        if modality not in self._gathered:
            if modality in self.encoded:
                mine = self.encoded[modality].pooled
            else:
                mine = next(self.model.project[modality].parameters()).new_zeros(0, self.model.dim)
            self._gathered[modality] = all_gather_rows(mine.to(torch.promote_types(mine.dtype, torch.float32)))
        return self._gathered[modality]

    @cached_property
    def everyone(self) -> Studies:
        """The studies of all ranks, in the order of the ranks; the same on each rank."""
        content, hashed = self._content()
        columns = [self.batch.subject[:, None], self.present.long(), content, hashed.long()]
        table = all_gather_rows(torch.cat(columns, dim=1))
        width = len(self.batch.modalities)
        subject, present, content, hashed = table.split([1, width, width, width], dim=1)
        return Studies(subject.squeeze(1), present.bool(), content, hashed.bool())

    def _content(self) -> tuple[Tensor, Tensor]:
        """(B, M) hashes, 0 where there is none, and (B, M) bool where there is one."""
        content = torch.zeros_like(self.present, dtype=torch.int64)
        hashed = torch.zeros_like(self.present)
        for column, modality in enumerate(self.batch.modalities):
            if modality in self.batch.content:
                content[self.present[:, column], column] = self.batch.content[modality]
                hashed[:, column] = self.present[:, column]
        return content, hashed
