"""How often modalities are absent: exactly as often as was asked for on average, and never all of a study.

Of the modalities that a study has and that may go, one is kept, drawn evenly; each of the others is absent with a probability
that is the severity on average over the cohort. So of all that could go, exactly this share goes, and a study without anything
does not come about. Studies of k modalities lose severity * (k - 1) / k of what they have: of four, 2/3 makes half absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from medssml.manifest.columns import inline_columns
from medssml.manifest.manifest import Manifest
from medssml.obstacles.base import TableObstacle

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: Draws behind which probability is looked up: more say nothing new.
_POPULATION = 50_000


class Absence(TableObstacle):
    """logit P(modality m of study i is absent) = c + leaning(i, m), c such that the severity is the mean.

    Args:
        severity: the share of what could go that goes.
        seed: of the draws.
        modalities: those that may go; None = all.
    """

    removes = True

    def __init__(self, severity: float = 0.5, seed: int = 0, modalities: Sequence[str] | None = None) -> None:
        super().__init__(severity, seed)
        self.modalities = None if modalities is None else tuple(modalities)
        self._population: Floats | None = None

    def leaning(self, studies: Manifest) -> Floats:
        """(N, M) what raises the logit of absence; none by default: completely at random."""
        return np.zeros((len(studies), len(studies.modalities)))

    def fit(self, studies: Manifest, among: Manifest | None = None) -> None:
        unknown = sorted(set(self.modalities or ()) - set(studies.modalities))
        if unknown:
            raise ValueError(f"{self.name}: no study has {', '.join(unknown)}; fix: of {', '.join(studies.modalities)}")
        self.learn(studies)
        among = studies if among is None else among
        leaning = self.leaning(among)[self.removable(among)]
        self._population = leaning[:: max(1, len(leaning) // _POPULATION)]

    def learn(self, studies: Manifest) -> None:
        """Learns what `leaning` must know. Nothing by default.

        Raises:
            ValueError: the studies have nothing that absence could depend on.
        """

    def kept(self, studies: Manifest) -> Bools:
        """(N, M) what a study keeps in any case: what may not go, or else one of what it has, drawn evenly."""
        may_go = np.array([self.modalities is None or name in self.modalities for name in studies.modalities], bool)
        return self._with_one(studies.present & ~may_go, studies.present, self.preference(studies))

    def preference(self, studies: Manifest) -> Floats:
        """(N, M) the modality with the most is the one that a study keeps."""
        return self.uniforms(studies.study_ids, tuple(f"keep {name}" for name in studies.modalities))

    @staticmethod
    def _with_one(kept: Bools, present: Bools, preference: Floats) -> Bools:
        """`kept`, and of studies that would keep nothing the preferred one of what they have."""
        first = np.where(present, preference, -1.0).argmax(axis=1)
        bare = ~kept.any(axis=1) & present.any(axis=1)
        kept = kept.copy()
        kept[np.flatnonzero(bare), first[bare]] = True
        return kept

    def removable(self, studies: Manifest) -> Bools:
        """(N, M) what of the studies may go."""
        return studies.present & ~self.kept(studies)

    def lot(self, studies: Manifest) -> Floats:
        """(N, M) the draws: a modality goes where its probability is above."""
        return self.uniforms(studies.study_ids, tuple(f"absent {name}" for name in studies.modalities))

    def present(self, studies: Manifest) -> Bools:
        """(N, M) what is left of the studies, columns as in `studies.modalities`.

        Raises:
            ValueError: `fit` has not seen a cohort.
        """
        if self.severity == 0:
            return studies.present
        chance = expit(self._constant() + self.leaning(studies))
        return studies.present & ~(self.removable(studies) & (self.lot(studies) < chance))

    def _constant(self) -> float:
        if self._population is None:
            raise ValueError(f"{self.name} does not know the cohort; fix: fit(studies) first")
        return constant_for(self.severity, self._population)

    def applied(self, studies: Manifest) -> Manifest:
        left = self.present(studies)
        gone = studies.present & ~left
        if not gone.any():
            return studies
        table = studies.table.copy()
        for column, name in enumerate(studies.modalities):
            cells = [cell for cell in (name, *inline_columns(name, table.columns)) if cell in table]
            table.loc[gone[:, column], cells] = ""
        return replace(studies, table=table)


def constant_for(severity: float, population: Floats) -> float:
    """c such that the mean of 1 / (1 + exp(-c - leaning)) is the severity, above 0, over leanings (n,)."""
    if severity == 1 or not len(population):
        return np.inf
    if not population.any():
        return float(np.log(severity) - np.log1p(-severity))
    reach = 40 + float(np.abs(population).max())
    return float(brentq(lambda constant: float(expit(constant + population).mean()) - severity, -reach, reach))


def standard(values: Floats) -> tuple[float, float]:
    """Mean and standard deviation of what is known; a deviation of 1 where all is the same."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    spread = float(known.std())
    return float(known.mean()), spread if spread > 0 else 1.0
