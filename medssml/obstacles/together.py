"""Several obstacles at once, as in a clinic: what they are called on the command line, and what befalls studies then."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from medssml.bounds import bounded
from medssml.manifest.manifest import Manifest
from medssml.obstacles.at_sites import at_sites
from medssml.obstacles.base import Damage, Obstacle

#: What a damage is told that befalls training studies as well.
TAUGHT = "taught"


class Together(Obstacle):
    """Obstacles one after the other, each at the severity times its level.

    What is learned of the cohort is learned of the studies before any of them.

    Args:
        parts: at their levels, which are their severities at severity 1 of all together.
        severity: of all together.
        name: what results call them; None = the parts' names.
    """

    def __init__(self, parts: Sequence[Obstacle], severity: float = 1.0, name: str | None = None) -> None:
        self.name = "+".join(part.name for part in parts) if name is None else name
        super().__init__(severity)
        self._levels = tuple(parts)
        self.parts = tuple(part.at(part.severity * self.severity) for part in self._levels)
        self.says = "; ".join(part.says for part in parts)
        self.of_training = all(part.of_training for part in parts)
        self.removes = any(part.removes for part in parts)

    def at(self, severity: float) -> Self:
        bounded(f"severity of {self.name}", severity, least=0, most=1)
        other = copy.copy(self)
        other.severity, other._arguments = float(severity), {**self._arguments, "severity": float(severity)}
        other.parts = tuple(part.at(part.severity * other.severity) for part in self._levels)
        return other

    def fit(self, studies: Manifest, among: Manifest | None = None) -> None:
        for part in (*self._levels, *self.parts):
            part.fit(studies, among)


def parts_of(obstacle: Obstacle) -> tuple[Obstacle, ...]:
    """The obstacles that befall studies one after the other: one, or those of `Together`."""
    return obstacle.parts if isinstance(obstacle, Together) else (obstacle,)


class Named(NamedTuple):
    """One obstacle as it is asked for: NAME[:WHAT][=LEVEL][@SHARE].

    kind: its class. what: the modalities that may go, or `TAUGHT`. level: its severity where all have severity 1; None where
    none is given. share: of the sites.
    """

    kind: type[Obstacle]
    what: tuple[str, ...] = ()
    level: float | None = None
    share: float = 1.0

    @property
    def taught(self) -> bool:
        """Whether a damage befalls training studies as well."""
        return self.what == (TAUGHT,)

    @property
    def label(self) -> str:
        """What results call it: as it was asked for."""
        level = "" if self.level is None else f"={self.level:g}"
        sites = "" if self.share == 1 else f"@{self.share:g}"
        return self.kind.name + (f":{','.join(self.what)}" if self.what else "") + level + sites

    @property
    def says(self) -> str:
        """What happens to a study, in words."""
        which = f" ({', '.join(self.what)})" if self.what and not self.taught else ""
        return self.kind.says + which + ("" if self.share == 1 else f", at {self.share:.0%} of the sites")

    def built(self, severity: float, seed: int, **more: Any) -> Obstacle:
        """The obstacle, not fitted yet. more: arguments for the classes that have them."""
        known = inspect.signature(self.kind).parameters
        own: dict[str, Any] = {name: value for name, value in more.items() if name in known}
        if self.what and not self.taught:
            own["modalities"] = list(self.what)
        level = 1.0 if self.level is None else self.level
        return at_sites(self.kind(severity=severity * level, seed=seed, **own), self.share)


def named(text: str) -> tuple[Named, ...]:
    """The obstacles of a text such as absent:ct=0.5+ct_dose@0.3.

    Raises:
        KeyError: no such obstacle. ValueError: a level or share that is none, or what the obstacle cannot be told.
    """
    return tuple(_one(part, text) for part in text.split("+"))


def together(asked: Sequence[Named], severity: float, seed: int, **more: Any) -> Obstacle:
    """What was asked for, one or several, not fitted yet; more: as `Named.built`."""
    parts = [part.built(1.0, seed, **more) for part in asked]
    plain = len(asked) == 1 and asked[0] == Named(asked[0].kind)
    return (parts[0] if plain else Together(parts, name=label_of(asked))).at(severity)


def label_of(asked: Sequence[Named]) -> str:
    """What results call all of them."""
    return "+".join(part.label for part in asked)


def _one(part: str, text: str) -> Named:
    from medssml.obstacles import OBSTACLES
    from medssml.schema import nearest

    head, at, share = part.partition("@")
    head, equals, level = head.partition("=")
    name, colon, what = head.partition(":")
    known = {kind.name: kind for kind in OBSTACLES}
    if name not in known:
        raise KeyError(f"no obstacle {name!r}{nearest(name, list(known))}")
    kind, words = known[name], tuple(what.split(",")) if colon else ()
    damage = issubclass(kind, Damage)
    if colon and (words != (TAUGHT,) if damage else "modalities" not in inspect.signature(kind).parameters):
        accepted = f"{name}:{TAUGHT}" if damage else "absent:ct, of an obstacle of absence"
        raise ValueError(f"obstacle {text}: {name} cannot be told {what!r}; fix: {name}, or {accepted}")
    found = Named(
        kind, words,
        _number(level, "level", text) if equals else None,
        _number(share, "share of sites", text) if at else 1.0,
    )  # fmt: skip
    bounded(f"severity of {name}", found.level, above=0, most=1)
    bounded(f"share of the sites of {name}", found.share, above=0, most=1)
    return found


def _number(given: str, what: str, text: str) -> float:
    try:
        return float(given)
    except ValueError:
        raise ValueError(f"obstacle {text}: the {what} is no number; fix: such as NAME=0.5@0.3") from None
