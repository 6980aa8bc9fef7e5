"""How alike two studies are by what the encoders gave of them, whichever modalities each has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from medssml.evaluation.encoded_studies import EncodedStudies
from medssml.evaluation.probes import unit
from medssml.statistics.bootstrap import Array

#: Studies that are compared with all others in one pass.
PASS = 1024


@dataclass(frozen=True)
class StudyVectors:
    """N studies; what each encoder gave of them is standardised over the studies that have it and has length 1.

    Not the fused vectors: a fusion that was never fine-tuned need not keep what labels depend on.

    Args:
        x: (N, sum of D_m), zeros where a modality is absent.
        has: (N, M) bool.
    """

    x: Array
    has: Array

    @classmethod
    def of(cls, studies: EncodedStudies) -> Self:
        """The vectors of studies behind their encoders."""
        parts = []
        for column, modality in enumerate(studies.modalities):
            if modality in studies.raw:
                given = studies.standardised(modality)
                filled = np.zeros((len(studies), given.shape[1]))
                filled[studies.has[:, column]] = unit(given)
                parts.append(filled)
        return cls(np.concatenate(parts, axis=1) if parts else np.zeros((len(studies), 0)), studies.has)

    def __len__(self) -> int:
        return len(self.x)

    def similarity(self, a: Array, b: Array) -> Array:
        """(len(a), len(b)) the mean cosine over the modalities that both of two studies have; 0 where there is none.

        Args:
            a, b: places of studies.
        """
        shared = self.has[a].astype(np.float64) @ self.has[b].T.astype(np.float64)
        return np.asarray((self.x[a] @ self.x[b].T) / np.maximum(shared, 1.0))

    def passes(self, among: Array) -> Iterator[tuple[Array, Array]]:
        """A part of the studies at the places `among` (n,), and their similarity to all of these (k, n)."""
        for start in range(0, len(among), PASS):
            rows = among[start : start + PASS]
            yield rows, self.similarity(rows, among)

    def neighbour_graph(self, neighbours: int, power: float = 3.0) -> Any:
        """(N, N) sparse, symmetric: max(similarity, 0) ** power of each study and the `neighbours` most similar ones, both ways
        (Iscen et al. 2019, whose power is 3); nobody is a neighbour of himself."""
        from scipy.sparse import coo_array

        every = np.arange(len(self))
        count = min(neighbours, len(self) - 1)
        rows, columns, values = [], [], []
        for part, similarity in self.passes(every):
            similarity[np.arange(len(part)), part] = -np.inf
            nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
            rows.append(np.repeat(part, count))
            columns.append(nearest.reshape(-1))
            values.append(np.take_along_axis(similarity, nearest, 1).reshape(-1).clip(0) ** power)
        found = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
        graph = coo_array(found, shape=(len(self), len(self))).tocsr()
        return (graph + graph.T).tocsr()
