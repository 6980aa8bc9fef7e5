"""What imputing fusions share: the vectors of all training studies in one table, and a fusion of what was filled in."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion


def table_of(fusion: Fusion, studies: Iterable[tuple[dict[str, Encoded], Tensor]]) -> tuple[Tensor, Tensor]:
    """(N, M, D) vectors, 0 where absent, and (N, M) bool presence of all studies that have something."""
    rows = [(fusion.table(encoded, present), present) for encoded, present in studies]
    if not rows:
        count = len(fusion.modalities)
        return torch.zeros(0, count, fusion.dim), torch.zeros(0, count, dtype=torch.bool)
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
            own = part.select(present[there[:, column], column])
            parts[name] = own._replace(pooled=encoded[name].pooled)
    return fused._replace(parts=parts)


def refuse_tokens(owner: str, inner: Fusion) -> None:
    """Refuses a fusion of tokens.

    Raises:
        ValueError: vectors are filled in, tokens are not.
    """
    if inner.reads != "pooled":
        raise ValueError(
            f"{owner} fills in pooled vectors, and {type(inner).__name__} reads tokens; fix: one that does not"
        )


def completed(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a fusion whose `fusion` need not repeat modalities and width; see `Configured.completed`."""
    inner = arguments.get("fusion")
    if not isinstance(inner, dict) or "class_path" not in inner:
        return arguments
    known = {key: arguments[key] for key in ("modalities", "dim") if key in arguments}
    return {**arguments, "fusion": {**inner, "init_args": {**known, **(inner.get("init_args") or {})}}}


def restricted(arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
    """The arguments for fewer modalities, those of the fusion inside too; see `Configured.restricted_to`."""
    names = [name for name in arguments["modalities"] if name in left]
    inner = completed(arguments)["fusion"]
    own = {**(inner.get("init_args") or {}), "modalities": names}
    return {**arguments, "modalities": names, "fusion": {**inner, "init_args": own}}
