"""Barlow Twins: each feature of one side of a study agrees with itself on the other side, and with no other feature."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medssml.losses import cross_correlation, redundancy
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen, two_or_more
from medssml.objectives.clock import Ramp
from medssml.objectives.sides import Across, Side, looks_for, ordered_pairs, rows_of_both
from medssml.objectives.step import Step
from medssml.spaces import NormedHead


class BarlowTwins(Objective):
    """loss = mean over pairs of sides (s, t) of  sum over d of (1 - C_dd)^2 + l * sum over d != e of C_de^2

    C (D, D) holds the correlations, over the studies of all ranks that have both sides, of the features of one side with those of
    the other. A side is a modality, or one of two looks at it, as in the paper [1]; it is expanded by a head of its
    modality. There are no negatives, so that studies of one subject and identical inputs need no care. A pair of sides that
    fewer than two studies have is left out of the mean.

    [1] Zbontar et al., Barlow Twins: self-supervised learning via redundancy reduction, ICML 2021.

    Args:
        model: the model.
        modalities: of which; all by default.
        across: what differs between two sides: the look at the same modality, the modality, or either.
        dim: D of the heads, three layers of that width; 8192 as in the paper.
        off_diagonal: l; 0.005 as in the paper.
        weight: in the sum of objectives.

    Raises:
        ValueError: no two sides, or l is negative.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        across: Across = "looks",
        dim: int = 8192,
        off_diagonal: float = 5e-3,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        names = chosen(model, modalities, "BarlowTwins")
        if off_diagonal < 0:
            raise ValueError(f"BarlowTwins: off_diagonal is {off_diagonal}; fix: 0 or more")
        self.views = looks_for(across)
        # C of (t, s) is C of (s, t) transposed: one order is enough.
        self.pairs = [pair for pair in ordered_pairs(names, across, "BarlowTwins") if pair[0] < pair[1]]
        self.off_diagonal = off_diagonal
        self.expanders = nn.ModuleDict({name: NormedHead(model.dim, dim, dim, layers=3) for name in names})

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the mean of C_dd over the pairs, which rises to 1."""
        counts = self._counts(step)
        # Every rank asks for the rows of every modality, also where it has none.
        vectors = {side: self._vectors(step, side) for pair in self.pairs for side in pair}
        found = [
            self._correlation(step, vectors, *pair) if count > 0 else None
            for pair, count in zip(self.pairs, counts, strict=True)
        ]
        defined = [c for c in found if c is not None]
        if not defined:
            return None
        zero = defined[0].new_zeros(())
        means = [zero if c is None else redundancy(c, off_diagonal=self.off_diagonal) for c in found]
        agreement = torch.stack([c.detach().diagonal().mean() for c in defined]).mean()
        return {"loss": step.mean_of_means(torch.stack(means), self._counts), "agreement": agreement}

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`."""
        out = super().restricted_to(arguments, left)
        return two_or_more(out, left) if arguments.get("across", "looks") == "modalities" else out

    def _vectors(self, step: Step, side: Side) -> Tensor:
        return step.views[side.look].pooled_of_all(side.modality)

    def _correlation(self, step: Step, vectors: dict[Side, Tensor], a: Side, b: Side) -> Tensor:
        """(D, D). Only rows of studies with both sides are expanded, so that no other has a part in a norm."""
        rows = rows_of_both(step, a, b)
        first, second = (
            self.expanders[side.modality](vectors[side][places]) for side, places in zip((a, b), rows, strict=True)
        )
        return cross_correlation(first, second)

    def _counts(self, step: Step) -> Tensor:
        """(pairs,) studies of all ranks that have both sides, 0 where it is a single one."""
        sizes = [len(rows_of_both(step, *pair)[0]) for pair in self.pairs]
        return torch.tensor([size if size > 1 else 0 for size in sizes], device=step.present.device)
