"""Imputation by retrieval: in the place of what is absent, what the most similar training studies had there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from medssml.batch import Encoded
from medssml.fusion.base import Fusion
from medssml.fusion.imputation import Imputation


class RetrievalImputation(Imputation):
    """h = fusion(x_m where m is present, the weighted mean of x_m of the k most similar training studies where not)

    Similar by the mean square distance of what both have, each modality in units of its own spread; the weights fall linearly
    to 0 at the study after the k-th. Before each epoch some training studies are taken in; in training the nearest one, which is
    the study itself, is left out. A study without anything, and a modality that no similar study has, stay absent. The idea of
    M3Care (Zhang et al. 2022), whose similarity is learned.

    The vectors of those training studies are saved with the model: hand it over only where these may go.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D.
        fusion: of vectors, over the same modalities; in a config it need not repeat modalities and dim.
        neighbours: k. memory: most training studies that are kept.

    Raises:
        ValueError: a fusion of tokens, no neighbour, or a memory of k or fewer.
    """

    def __init__(
        self, modalities: Sequence[str], dim: int, fusion: Fusion, *, neighbours: int = 8, memory: int = 1024
    ) -> None:
        super().__init__(modalities, dim, fusion)
        if not 1 <= neighbours < memory - 1:
            raise ValueError(
                f"neighbours {neighbours}, memory {memory}; fix: at least 1, and a memory of more than one more"
            )
        self.neighbours = neighbours
        self.register_buffer("memory", torch.zeros(memory, len(self.modalities), dim))
        self.register_buffer("held", torch.zeros(memory, len(self.modalities), dtype=torch.bool))
        self.register_buffer("spread", torch.ones(len(self.modalities)))
        self.memory: Tensor
        self.held: Tensor
        self.spread: Tensor

    def fit(self, studies: Iterable[tuple[dict[str, Encoded], Tensor]]) -> None:
        """See `Fusion.fit`."""
        table, present = self.table_of(studies)
        # Evenly from all of them: the order of the studies may mean something.
        size = min(len(table), len(self.memory))
        rows = torch.linspace(0, max(len(table) - 1, 0), size, device=table.device).round().long()
        self.held.fill_(False)
        self.memory[:size], self.held[:size] = table[rows].to(self.memory), present[rows].to(self.held)
        for column in range(len(self.modalities)):
            vectors = table[present[:, column], column]
            if len(vectors) > 1:
                self.spread[column] = vectors.var(0).mean().sqrt().clamp(min=1e-6)

    def filled(self, table: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """See `Imputation.filled`; nothing before the first fit, nor where no kept study has something in common."""
        filled = torch.zeros_like(present)
        if bool(self.held.any()) and not bool(present.all()):
            distance = self._distances(table.detach(), present)
            for column in range(len(self.modalities)):
                rows = (~present[:, column]).nonzero().squeeze(1)
                found, some = self._mean_of_nearest(distance[rows], column)
                at = (rows[some], torch.full_like(rows[some], column))
                table = table.index_put(at, found[some].to(table.dtype))
                filled[at] = True
        return table, filled

    def _distances(self, table: Tensor, present: Tensor) -> Tensor:
        """(B, K) mean square distance to each kept study of what both have; inf where that is nothing."""
        total = self.memory.new_zeros(len(table), len(self.memory))
        for column in range(len(self.modalities)):
            both = present[:, column, None] & self.held[None, :, column]
            one, other = (part[:, column].to(total.dtype) / self.spread[column] for part in (table, self.memory))
            apart = torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist").square() / self.dim
            total = total + torch.where(both, apart, 0.0)
        count = present.to(total.dtype) @ self.held.to(total.dtype).T
        return torch.where(count > 0, total / count.clamp(min=1), torch.inf)

    def _mean_of_nearest(self, distance: Tensor, column: int) -> tuple[Tensor, Tensor]:
        """(n, D) mean of a modality over the nearest studies that have it, and (n,) bool, for whom there is one."""
        distance = torch.where(self.held[None, :, column], distance, torch.inf)
        first = 1 if self.training else 0  # the nearest one of a training study is itself
        nearest, rows = distance.topk(self.neighbours + 1 + first, largest=False)
        nearest, rows = nearest[:, first:], rows[:, first:]
        real = nearest.isfinite()[:, :-1]
        edge = torch.where(nearest[:, -1:].isfinite(), nearest[:, -1:], torch.inf).clamp(min=1e-12)
        # A little for each, so that as many equally near ones as there may be share the weight.
        weight = torch.where(real, 1 - torch.where(real, nearest[:, :-1], 0.0) / edge + 1e-3, 0.0)
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-12)
        return torch.einsum("nk,nkd->nd", weight, self.memory[rows[:, :-1], column]), real.any(1)
