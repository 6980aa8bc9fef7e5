"""What a fusion operator is: it joins the modalities that each study has, and defines what a study without any is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.config import Configured

#: (D,) weight and bias of one number that is read from one modality's projected vector.
Evidence = tuple[np.ndarray, float]


class Fusion(Configured, nn.Module):
    """Joins modalities. A study's output depends on its own present modalities only.

    Attributes:
        dim: D, of all inputs and of the output.
        modalities: names, in the order of the columns of `present`.
        reads: what of each modality it reads, "pooled" or "tokens". Whoever keeps a cohort in memory keeps no tokens for a
            fusion that reads pooled vectors.
        keeps: names of what it puts into `Fused.extra`.
        room: how many numbers `begin` can place.
    """

    reads: Literal["pooled", "tokens"] = "tokens"
    keeps: tuple[str, ...] = ()
    room: int = 0

    def __init__(self, modalities: Sequence[str], dim: int) -> None:
        super().__init__()
        self.modalities = checked_names(modalities)
        self.dim = dim

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`."""
        return {**arguments, "modalities": [name for name in arguments["modalities"] if name in left]}

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fuses B studies.

        Args:
            encoded: modality -> rows of exactly the studies where its column of `present` is True; a modality that no
                study has may be left out. The order of the dict does not matter.
            present: (B, M) bool.

        Returns:
            Fused with pooled (B, D), defined for a study that has nothing too; with `parts` where tokens were mixed.
        """
        raise NotImplementedError

    def fit(self, studies: Iterable[tuple[dict[str, Encoded], Tensor]]) -> None:
        """Before each epoch of training: for what is fitted to all training studies at once. By default nothing is.

        Args:
            studies: (encoded, present) of batches of all training studies, without gradients, the same on every rank.
        """

    def begin(self, evidence: Sequence[Mapping[str, Evidence]]) -> None:
        """Sets the weights such that feature k of the fused vector is evidence k, summed over the modalities that a study has.

        Args:
            evidence: at most `room` numbers; of each the map of every modality that says something of it, on the vector that
                the fusion is given.

        Raises:
            ValueError: there is no room for so many.
        """
        raise ValueError(f"{type(self).__name__} has no room for {len(evidence)} numbers; room: {self.room}")

    def in_order(self, encoded: dict[str, Encoded], present: Tensor) -> Iterator[tuple[int, Encoded, Tensor]]:
        """Column, encoded rows and their positions (n_m,) in the batch, of each modality that a study has.

        Raises:
            KeyError: a modality that this operator does not know.
            ValueError: `present` and `encoded` disagree.
        """
        unknown = sorted(set(encoded) - set(self.modalities))
        if unknown:
            raise KeyError(f"fusion of {list(self.modalities)} received {unknown}")
        if present.ndim != 2 or present.shape[1] != len(self.modalities):
            raise ValueError(
                f"present is {tuple(present.shape)}, expected (B, {len(self.modalities)}): {list(self.modalities)}"
            )
        for column, modality in enumerate(self.modalities):
            rows = present[:, column].nonzero().squeeze(1)
            given = len(encoded[modality].pooled) if modality in encoded else 0
            if given != len(rows):
                raise ValueError(f"{modality}: {given} encoded rows, but {len(rows)} studies where present is True")
            if given:
                yield column, encoded[modality], rows

    def table(self, encoded: dict[str, Encoded], present: Tensor) -> Tensor:
        """(B, M, D) pooled vector of each modality, 0 where it is absent, in the dtype of the parameters; see `in_order`."""
        table = next(self.parameters()).new_zeros(len(present), len(self.modalities), self.dim)
        for column, part, rows in self.in_order(encoded, present):
            table = table.index_put((rows, torch.full_like(rows, column)), part.pooled.to(table.dtype))
        return table


class OwnLinear(nn.Module):
    """A linear map of its own for each of G groups: (B, G, D) -> (B, G, E). It begins as `nn.Linear` does."""

    def __init__(self, groups: int, dim: int, out: int) -> None:
        super().__init__()
        bound = dim**-0.5
        self.weight = nn.Parameter(torch.empty(groups, dim, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups, out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(B, G, E) from x (B, G, D)."""
        return torch.einsum("bgd,gde->bge", x, self.weight) + self.bias


def scatter(values: Tensor, rows: Tensor, size: int) -> Tensor:
    """(size, ...) zeros with values (n, ...) at rows (n,)."""
    out = values.new_zeros(size, *values.shape[1:])
    return out.index_put((rows,), values)


def checked_names(modalities: Sequence[str]) -> tuple[str, ...]:
    """The names, once each.

    Raises:
        ValueError: none, or one of them twice.
    """
    if not modalities or len(set(modalities)) != len(modalities):
        raise ValueError(f"modalities {list(modalities)}: at least one, and each once")
    return tuple(modalities)
