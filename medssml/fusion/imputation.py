"""What imputing fusions share: a fusion inside, and the vectors of all training studies in one table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion


class Imputation(Fusion):
    """A fusion of vectors that is given, in the place of what is absent, what the class says: see `filled`.

    Args:
        modalities, dim: as of any fusion.
        fusion: of vectors, which joins what was there and what was filled in.

    Raises:
        ValueError: a fusion of tokens: vectors are filled in, tokens are not.
    """

    reads = "pooled"

    def __init__(self, modalities: Sequence[str], dim: int, fusion: Fusion) -> None:
        super().__init__(modalities, dim)
        if fusion.reads != "pooled":
            raise ValueError(
                f"{type(self).__name__} fills in pooled vectors, and {type(fusion).__name__} reads tokens; fix: one that "
                f"does not"
            )
        self.fusion, self.keeps = fusion, fusion.keeps

    @classmethod
    def completed(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """The `fusion` inside need not repeat modalities and width; see `Configured.completed`."""
        inner = arguments.get("fusion")
        if not isinstance(inner, dict) or "class_path" not in inner:
            return arguments
        known = {key: arguments[key] for key in ("modalities", "dim") if key in arguments}
        return {**arguments, "fusion": {**inner, "init_args": {**known, **(inner.get("init_args") or {})}}}

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """Fewer modalities, those of the fusion inside too; see `Configured.restricted_to`."""
        names = [name for name in arguments["modalities"] if name in left]
        inner = cls.completed(arguments)["fusion"]
        own = {**(inner.get("init_args") or {}), "modalities": names}
        return {**arguments, "modalities": names, "fusion": {**inner, "init_args": own}}

    def filled(self, table: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The table (B, M, D) with what stands in for what is absent, and (B, M) bool, where it does.

        Args:
            table: (B, M, D) vectors, 0 where absent. present: (B, M) bool.
        """
        raise NotImplementedError

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """What the fusion inside gives; see `Fusion.forward`."""
        table, filled = self.filled(self.table(encoded, present), present)
        return fused_with(self.fusion, encoded, present, table, filled)

    def table_of(self, studies: Iterable[tuple[dict[str, Encoded], Tensor]]) -> tuple[Tensor, Tensor]:
        """(N, M, D) vectors, 0 where absent, and (N, M) bool presence of all studies that have something."""
        rows = [(self.table(encoded, present), present) for encoded, present in studies]
        if not rows:
            count = len(self.modalities)
            return torch.zeros(0, count, self.dim), torch.zeros(0, count, dtype=torch.bool)
        table, present = (torch.cat(parts) for parts in zip(*rows, strict=True))
        something = present.any(1) & torch.isfinite(table).all(-1).all(-1)
        return table[something], present[something]


def fused_with(inner: Fusion, encoded: dict[str, Encoded], present: Tensor, table: Tensor, filled: Tensor) -> Fused:
    """What `inner` makes of the studies with what was filled in; its parts are of what was truly there.

    Args:
        encoded, present: what was there, as of `Fusion.forward`.
        table: (B, M, D) vectors. filled: (B, M) bool, where they stand in for what is absent.
    """
    there = present | filled
    given = {}
    for column, name in enumerate(inner.modalities):
        rows = there[:, column]
        if bool(rows.any()):
            vectors = table[rows, column]
            mask = torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device)
            given[name] = Encoded(vectors.unsqueeze(1), mask, vectors)
    fused = inner(given, there)
    parts = {}
    for name, part in fused.parts.items():
        if name in encoded:
            column = inner.modalities.index(name)
            parts[name] = part.select(present[there[:, column], column])
    return fused._replace(parts=parts)
