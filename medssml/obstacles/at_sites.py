"""Obstacles that befall the studies of some sites alone, as a scanner of low dose stands in one hospital and not in all."""

from __future__ import annotations

import copy
import math
from typing import Self

import numpy as np
from numpy.typing import NDArray

from medssml.bounds import bounded
from medssml.manifest.manifest import Manifest
from medssml.obstacles.absent import SITES
from medssml.obstacles.base import Damage, Obstacle, TableObstacle, rejoined
from medssml.randomness import hash64, mix
from medssml.transforms.base import Preparation, Prepared


class Sites:
    """A share of the sites of a cohort, at least one: those that are drawn first, so that a smaller share is a part of a larger.

    Studies of which no site is known belong to none.

    Args:
        share: above 0, at most 1. column: None = group_site, group_scanner or source, the first that the table has.
        seed: of the order.
        owner: for messages.
    """

    def __init__(self, share: float, column: str | None, seed: int, owner: str) -> None:
        bounded(f"share of {owner}", share, above=0, most=1)
        self.share, self.column, self.seed, self.owner = float(share), column, int(seed), owner
        self._hit: frozenset[str] | None = None
        self._column = ""

    def fit(self, studies: Manifest) -> None:
        """Learns which sites there are.

        Raises:
            ValueError: the table does not say where studies come from.
        """
        options = SITES if self.column is None else (self.column,)
        self._column = next((name for name in options if name in studies.table), "")
        sites = {str(cell) for cell in studies.table[self._column]} - {""} if self._column else set()
        if not sites:
            raise ValueError(f"{self.owner}: no site in the columns {list(options)}; fix: site: a column of the table")
        drawn = sorted(sites, key=lambda site: mix(self.seed, hash64("site"), hash64(site)))
        self._hit = frozenset(drawn[: math.ceil(round(self.share * len(drawn), 6))])

    def hit(self, studies: Manifest) -> NDArray[np.bool_]:
        """(N,) the studies that come from them.

        Raises:
            ValueError: `fit` has not seen a cohort.
        """
        if self._hit is None:
            raise ValueError(f"{self.owner} does not know the cohort; fix: fit(studies) first")
        return np.array([str(cell) in self._hit for cell in studies.table[self._column]], bool)


class AtSites(Obstacle):
    """Another obstacle, at some sites; its severity is that of the other one."""

    obstacle: Obstacle

    def at(self, severity: float) -> Self:
        other = copy.copy(self)
        other.obstacle, other.severity = self.obstacle.at(severity), float(severity)
        other._arguments = {**self._arguments, "obstacle": other.obstacle}
        return other


class TableAtSites(AtSites, TableObstacle):
    """An obstacle of the table that befalls the studies of some sites alone; its severity is a mean over those.

    Args:
        obstacle: which.
        share: of the sites. site: the column. See `Sites`.
    """

    obstacle: TableObstacle

    def __init__(self, obstacle: TableObstacle, share: float = 0.5, site: str | None = None) -> None:
        self.name, self.says = _named(obstacle, share)
        super().__init__(obstacle.severity, obstacle.seed)
        self.obstacle, self.of_training, self.removes = obstacle, obstacle.of_training, obstacle.removes
        self.sites = Sites(share, site, obstacle.seed, self.name)

    def fit(self, studies: Manifest, among: Manifest | None = None) -> None:
        self.sites.fit(studies)
        among = studies if among is None else among
        self.obstacle.fit(studies, among.filter(self.sites.hit(among)))

    def applied(self, studies: Manifest) -> Manifest:
        part = studies.filter(self.sites.hit(studies))
        left = self.obstacle.applied(part)
        return studies if left is part else rejoined(studies, part, left)

    def partners(self, studies: Manifest) -> NDArray[np.int64]:
        found, rows = super().partners(studies), np.flatnonzero(self.sites.hit(studies))
        within = self.obstacle.partners(studies.filter(rows))
        found[rows] = np.where(within >= 0, rows[within] if len(rows) else within, -1)
        return found


class DamageAtSites(AtSites, Damage):
    """A damage that befalls the studies of some sites alone.

    Args:
        obstacle: which.
        share: of the sites. site: the column. See `Sites`.
    """

    obstacle: Damage

    def __init__(self, obstacle: Damage, share: float = 0.5, site: str | None = None) -> None:
        self.name, self.says = _named(obstacle, share)
        super().__init__(obstacle.severity, obstacle.seed)
        self.obstacle, self.modality, self.entry = obstacle, obstacle.modality, obstacle.entry
        self.sites = Sites(share, site, obstacle.seed, self.name)
        self._studies: frozenset[str] | None = None

    def fit(self, studies: Manifest, among: Manifest | None = None) -> None:
        self.sites.fit(studies)
        self._studies = frozenset(str(study) for study in studies.study_ids[self.sites.hit(studies)])

    def why_not(self, preparation: Preparation) -> str | None:
        return self.obstacle.why_not(preparation)

    def damaged(self, prepared: Prepared, study_id: str, preparation: Preparation) -> Prepared:
        if self._studies is None:
            raise ValueError(f"{self.name} does not know the cohort; fix: fit(studies) first")
        return self.obstacle.damaged(prepared, study_id, preparation) if study_id in self._studies else prepared


def at_sites(obstacle: Obstacle, share: float, site: str | None = None) -> Obstacle:
    """The obstacle, at a share of the sites; at all of them it is the obstacle itself.

    Raises:
        TypeError: one that befalls neither the table nor a modality.
    """
    if share == 1 and site is None:
        return obstacle
    if isinstance(obstacle, Damage):
        return DamageAtSites(obstacle, share, site)
    if isinstance(obstacle, TableObstacle):
        return TableAtSites(obstacle, share, site)
    raise TypeError(f"{obstacle.name} befalls neither the table nor a modality")


def _named(obstacle: Obstacle, share: float) -> tuple[str, str]:
    return f"{obstacle.name}@{share:g}", f"{obstacle.says}, at {share:.0%} of the sites"
