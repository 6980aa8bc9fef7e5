"""Modalities that a study lacks: at random, by what is observed, by the label, in turn, by site, or against training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medssml.manifest.manifest import Manifest
from medssml.obstacles.absence import Absence, Bools, Floats, standard
from medssml.randomness import hash64, mix

#: Columns that may say where a study comes from, and what is known of a patient, the best first.
SITES = ("group_site", "group_scanner", "source")
#: Of the logit, per standard deviation of what absence depends on: the odds are 20 to 1 between the halves.
_STRENGTH = 1.5


class Absent(Absence):
    """Modalities are absent completely at random (MCAR)."""

    name = "absent"
    says = "modalities are absent at random"


class AbsentByCovariate(Absence):
    """Modalities are absent by what is observed (MAR): a column of the table, or whether a study has another modality.

    Modalities lean in turns: of two, one is absent where the value is high, the other where it is low.

    Args:
        severity, seed, modalities: as `Absence`.
        on: a column, or a modality, which then stays; None = the first `group_` column, else where a study comes from.
        strength: of the logit per standard deviation.
    """

    name = "absent_by_covariate"
    says = "modalities are absent by a covariate that is known"

    def __init__(
        self,
        severity: float = 0.5,
        seed: int = 0,
        modalities: Sequence[str] | None = None,
        on: str | None = None,
        strength: float = _STRENGTH,
    ) -> None:
        super().__init__(severity, seed, modalities)
        self.on, self.strength = on, float(strength)
        self._column = ""
        self._centre, self._places = (0.0, 1.0), {}  # type: tuple[float, float], dict[str, float]

    def learn(self, studies: Manifest) -> None:
        groups = [str(name) for name in studies.table if str(name).startswith("group_")]
        options = [self.on] if self.on is not None else [*groups, *SITES]
        varied = (name for name in options if name in studies.modalities or self._varies(studies, name))
        self._column = next(varied, "")
        if not self._column:
            raise ValueError(f"{self.name}: none of the columns {options} has two values; fix: on: a column that has")
        if self._column in studies.modalities:
            return
        cells = studies.table[self._column]
        if pd.to_numeric(cells.replace("", np.nan), errors="coerce").notna().sum() < (cells != "").sum():
            self._places = {value: float(place) for place, value in enumerate(sorted(set(cells) - {""}))}
        self._centre = standard(self._values(studies))

    @staticmethod
    def _varies(studies: Manifest, name: str) -> bool:
        return name in studies.table and len(set(studies.table[name]) - {""}) > 1

    def _values(self, studies: Manifest) -> Floats:
        """(N,) numbers of the column, NaN where nothing is known."""
        cells = studies.table[self._column]
        if self._places:
            return np.array([self._places.get(str(cell), np.nan) for cell in cells], np.float64)
        return pd.to_numeric(cells.replace("", np.nan), errors="coerce").to_numpy(np.float64)

    def leaning(self, studies: Manifest) -> Floats:
        if self._column in studies.modalities:
            has = studies.present[:, studies.modalities.index(self._column)]
            value = np.where(has, 1.0, -1.0)
        else:
            value = np.nan_to_num((self._values(studies) - self._centre[0]) / self._centre[1], nan=0.0)
        turns = np.where(np.arange(len(studies.modalities)) % 2 == 0, 1.0, -1.0)
        return self.strength * value[:, None] * turns

    def kept(self, studies: Manifest) -> Bools:
        if self._column not in studies.modalities:
            return super().kept(studies)
        column = studies.modalities.index(self._column)
        observed = np.zeros(studies.present.shape, bool)
        observed[:, column] = studies.present[:, column]
        return self._with_one(observed, studies.present, self.preference(studies))


class AbsentByLabel(Absence):
    """Modalities are absent by the label itself (MNAR): the sicker the patient, the more is recorded.

    Args:
        severity, seed, modalities: as `Absence`.
        task: whose label; None = the first of the table.
        flipped: the other way round, as where training and test were recorded differently.
        strength: of the logit per standard deviation.
    """

    name = "absent_by_label"
    says = "modalities are absent where the label is low"

    def __init__(
        self,
        severity: float = 0.5,
        seed: int = 0,
        modalities: Sequence[str] | None = None,
        task: str | None = None,
        flipped: bool = False,
        strength: float = _STRENGTH,
    ) -> None:
        super().__init__(severity, seed, modalities)
        self.task, self.strength = task, -float(strength) if flipped else float(strength)
        self._of, self._centre = "", (0.0, 1.0)

    def learn(self, studies: Manifest) -> None:
        self._of = self.task if self.task is not None else next(iter(studies.targets), "")
        if self._of not in studies.targets:
            raise ValueError(f"{self.name}: no label_{self._of} in the table; fix: task: one of {list(studies.tasks)}")
        self._centre = standard(studies.targets[self._of])

    def leaning(self, studies: Manifest) -> Floats:
        level = np.nan_to_num((studies.targets[self._of] - self._centre[0]) / self._centre[1], nan=0.0)
        return np.repeat(-self.strength * level[:, None], len(studies.modalities), axis=1)


class AbsentButOne(Absence):
    """A share of the studies keeps one modality alone: what they have excludes each other."""

    name = "absent_but_one"
    says = "studies keep one modality alone"

    def lot(self, studies: Manifest) -> Floats:
        return np.repeat(self.uniforms(studies.study_ids, ("one alone",)), len(studies.modalities), axis=1)


class AbsentBySite(Absence):
    """A site does not record a modality at all.

    Args:
        severity, seed, modalities: as `Absence`; the severity is the mean over sites.
        site: the column; None = group_site, group_scanner or source, the first that the table has.
    """

    name = "absent_by_site"
    says = "whole sites lack a modality"

    def __init__(
        self,
        severity: float = 0.5,
        seed: int = 0,
        modalities: Sequence[str] | None = None,
        site: str | None = None,
    ) -> None:
        super().__init__(severity, seed, modalities)
        self.site = site
        self._column = ""

    def learn(self, studies: Manifest) -> None:
        options = SITES if self.site is None else (self.site,)
        self._column = next((name for name in options if name in studies.table), "")
        if not self._column:
            raise ValueError(f"{self.name}: the table has none of the columns {list(options)}; fix: site: a column")

    def _of_site(self, studies: Manifest, what: str) -> Floats:
        """(N, M) draws that the studies of a site share."""
        seed = mix(self.seed, hash64(self.name))
        sites = {str(cell) for cell in studies.table[self._column]}
        rows = {
            site: [mix(seed, hash64(site), hash64(f"{what} {name}")) / 2.0**63 for name in studies.modalities]
            for site in sites
        }
        found = np.array([rows[str(cell)] for cell in studies.table[self._column]], np.float64)
        return found.reshape(len(studies), len(studies.modalities))

    def preference(self, studies: Manifest) -> Floats:
        return self._of_site(studies, "keep")

    def lot(self, studies: Manifest) -> Floats:
        return self._of_site(studies, "absent")


class AbsentAgainstTraining(Absence):
    """The pattern of training is turned round: what its studies nearly always had is what is absent now.

    Args:
        severity, seed, modalities: as `Absence`.
        strength: of the logit per standard deviation of the shares of training studies that have each modality.
    """

    name = "absent_against_training"
    says = "what training studies had most often is absent most often"

    def __init__(
        self,
        severity: float = 0.5,
        seed: int = 0,
        modalities: Sequence[str] | None = None,
        strength: float = _STRENGTH,
    ) -> None:
        super().__init__(severity, seed, modalities)
        self.strength = float(strength)
        self._shares: dict[str, float] = {}

    def learn(self, studies: Manifest) -> None:
        train = studies.present[studies.splits == "train"]
        if not len(train):
            raise ValueError(f"{self.name}: the table has no training study; fix: a table with the split train")
        self._shares = dict(zip(studies.modalities, train.mean(axis=0).tolist(), strict=True))

    def leaning(self, studies: Manifest) -> Floats:
        shares = np.array([self._shares.get(name, 0.0) for name in studies.modalities], np.float64)
        mean, spread = standard(shares)
        return np.repeat(self.strength * ((shares - mean) / spread)[None], len(studies), axis=0)
