"""Studies put together from two patients: one modality of a study is that of another subject."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medssml.manifest.columns import inline_columns
from medssml.manifest.manifest import Manifest
from medssml.manifest.stated_header import given_columns
from medssml.obstacles.base import TableObstacle
from medssml.randomness import hash64, mix


class Mispaired(TableObstacle):
    """A share of the studies with two modalities or more has one of them, drawn evenly, of another subject.

    Who has whose is read off a ring: of all that have the modality, the next one of another subject, in an order that follows
    from the seed and the studies' ids.
    """

    name = "mispaired"
    says = "one modality is that of another patient"

    def partners(self, studies: Manifest) -> NDArray[np.int64]:
        """(N, M) the study that each modality is taken from: the study itself, or another; -1 where it has none."""
        own = np.where(studies.present, np.arange(len(studies))[:, None], -1)
        if self.severity == 0:
            return own
        several = studies.present.sum(axis=1) > 1
        draws = self.uniforms(studies.study_ids, tuple(f"move {name}" for name in studies.modalities))
        moved = np.where(studies.present, draws, -1.0).argmax(axis=1)
        chosen = several & (self.uniforms(studies.study_ids, ("mispaired",))[:, 0] < self.severity)
        for column in range(len(studies.modalities)):
            rows = np.flatnonzero(chosen & (moved == column))
            own[rows, column] = self._next(studies, column)[rows]
        return own

    def _next(self, studies: Manifest, column: int) -> NDArray[np.int64]:
        """(N,) the next study of another subject that has the modality; itself where all are of one subject."""
        found = np.arange(len(studies))
        seed = mix(self.seed, hash64(self.name), hash64(studies.modalities[column]))
        ring = sorted(
            np.flatnonzero(studies.present[:, column]), key=lambda row: mix(seed, hash64(str(studies.study_ids[row])))
        )
        subjects = [studies.subject_ids[row] for row in ring]
        for place, row in enumerate(ring):
            others = (at % len(ring) for at in range(place + 1, place + len(ring)))
            found[row] = next((ring[at] for at in others if subjects[at] != subjects[place]), row)
        return found

    def applied(self, studies: Manifest) -> Manifest:
        source = self.partners(studies)
        moved = studies.present & (source != np.arange(len(studies))[:, None])
        if not moved.any():
            return studies
        table, before = studies.table.copy(), studies.table
        for column, name in enumerate(studies.modalities):
            rows = np.flatnonzero(moved[:, column])
            # What the table says of a file goes where the file goes.
            cells = [name, *inline_columns(name, table.columns), *given_columns([name])]
            for cell in (cell for cell in cells if cell in table):
                told = before[cell].to_numpy(dtype=object).copy()
                told[rows] = before[cell].to_numpy(dtype=object)[source[rows, column]]
                table[cell] = told
        return replace(studies, table=table)
