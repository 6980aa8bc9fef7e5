"""What all obstacles have in common: a name, a severity from 0 to 1, and draws that hang on seed, study and obstacle alone.

A draw does not depend on the severity: what a smaller one changes, a larger one changes at least as much. Severity 0 gives back
what it was given, bit for bit.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from medssml.bounds import bounded
from medssml.config import Configured
from medssml.manifest.manifest import Manifest
from medssml.randomness import hash64, mix
from medssml.transforms.base import Preparation, Prepared


class Obstacle(Configured):
    """Something that studies suffer in a clinic and not in a curated set.

    Args:
        severity: 0, nothing, to 1, the most that there is.
        seed: of the draws.

    Attributes:
        name: what results call it.
        says: what happens to a study, in words.
        of_training: whether it befalls what a model is taught alone, and nothing that it is asked about.
        removes: whether studies may lack modalities afterwards.
    """

    name: str
    says: str
    of_training: bool = False
    removes: bool = False

    def __init__(self, severity: float = 0.5, seed: int = 0) -> None:
        bounded(f"severity of {self.name}", severity, least=0, most=1)
        self.severity, self.seed = float(severity), int(seed)

    def at(self, severity: float) -> Self:
        """The same obstacle, and what it has learned of the cohort, at another severity.

        Raises:
            ValueError: not 0 to 1.
        """
        bounded(f"severity of {self.name}", severity, least=0, most=1)
        other = copy.copy(self)
        other.severity, other._arguments = float(severity), {**self._arguments, "severity": float(severity)}
        return other

    def fit(self, studies: Manifest, among: Manifest | None = None) -> None:
        """Learns what it must know of the cohort, such as how common a label is. Nothing by default.

        Args:
            studies: all of the cohort.
            among: those that are to suffer, over which the severity is a mean; None = all.

        Raises:
            ValueError: there is nothing in these studies that it could act on.
        """

    def key(self, study_id: str) -> int:
        """Seed of what happens to one study: of the table's id, whatever results call it."""
        return mix(self.seed, hash64(self.name), hash64(study_id))

    def draws(self, study_id: str) -> np.random.Generator:
        """Where the numbers of one study come from."""
        return np.random.default_rng(self.key(study_id))

    def uniforms(self, ids: NDArray[np.object_], names: tuple[str, ...]) -> NDArray[np.float64]:
        """(N, K) numbers in [0, 1), one for each study, or subject, and name of what it is for."""
        codes = [hash64(name) for name in names]
        rows = [[mix(key, code) / 2.0**63 for code in codes] for key in (self.key(str(one)) for one in ids)]
        return np.array(rows, dtype=np.float64).reshape(len(ids), len(names))


class TableObstacle(Obstacle):
    """What befalls the table of a cohort: which modalities a study has, whose they are, what its labels say."""

    def applied(self, studies: Manifest) -> Manifest:
        """The studies as the obstacle leaves them, fewer of training where it takes some away; the same object at severity 0.

        Raises:
            ValueError: it has nothing to act on in these studies, or was not fitted.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what becomes of a table")

    def partners(self, studies: Manifest) -> NDArray[np.int64]:
        """(N, M) the study that each modality is taken from: the study itself by default; -1 where none is left."""
        return np.where(self.applied(studies).present, np.arange(len(studies))[:, None], -1)


class Damage(Obstacle):
    """What befalls one modality of a study, as it was recorded: HU, gray in [0, 1], uV, text.

    Attributes:
        modality: which.
        entry: the array of a prepared study that it changes.
    """

    modality: str
    entry: str

    def why_not(self, preparation: Preparation) -> str | None:
        """Why it can do nothing to what a road reads, or None: a filter of the road may take it away again."""
        return None

    def damaged(self, prepared: Prepared, study_id: str, preparation: Preparation) -> Prepared:
        """What is left of one study; the arrays that come in stay as they are.

        Args:
            prepared: what the loader of the modality's road prepared.
            study_id: of the table.
            preparation: of the loader: it knows spacing, rate and filter.

        Raises:
            ValueError: the loader is none of this package's.
        """
        if self.severity == 0:
            return prepared
        if self.entry not in prepared:
            raise ValueError(
                f"{self.name} changes {self.entry!r} of {self.modality}, and its road prepares {sorted(prepared)}; fix: a road "
                f"that begins with a loader of medssml.transforms"
            )
        return {**prepared, **self.changed(prepared, self.draws(study_id), preparation)}

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        """The arrays that become others, at a severity above 0."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it changes")


def rejoined(studies: Manifest, part: Manifest, left: Manifest) -> Manifest:
    """The studies, of which those of `part` are what is `left` of them: other cells, or some gone; the order stays."""
    cells = studies.table.drop(part.table.index.difference(left.table.index))
    cells.loc[left.table.index] = left.table
    return replace(studies, table=cells)


def why_not_on(road: Any, damage: Damage) -> str | None:
    """Why a damage cannot be done to what a road reads, or None."""
    if not hasattr(road, "from_loader"):
        return f"the transform of {damage.modality}, {type(road).__name__}, is none of MONAI's steps behind a loader"
    return damage.why_not(road.from_loader().preparation)
