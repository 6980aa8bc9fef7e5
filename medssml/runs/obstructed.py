"""The studies of a training as obstacles leave them: those of training and validation suffer, those of the test never."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from medssml.config import Node
    from medssml.manifest.manifest import Manifest
    from medssml.obstacles import Damage, Obstacle


class Obstructed(NamedTuple):
    """What obstacles leave of the studies of a run.

    table: all studies, those of training and validation as the obstacles of the table leave them. damages: what befalls these
    when they are loaded. said: a line on each obstacle, in their order.
    """

    table: Manifest
    damages: tuple[Damage, ...]
    said: tuple[str, ...] = ()


def obstructed(table: Manifest, nodes: Sequence[Node], plugins: Collection[str] = ()) -> Obstructed:
    """What the obstacles of `data.obstacles` do to training and validation studies, in their order.

    Args:
        table: all studies.
        nodes: of obstacles: absence, exchange, labels; damage of a modality.
        plugins: packages that classes may come from.

    Raises:
        medssml.config.ConfigError: no such obstacle. ValueError: it has nothing to act on in these studies.
    """
    from medssml.config import build
    from medssml.obstacles import Damage, Obstacle
    from medssml.obstacles.base import rejoined
    from medssml.runs import console

    damages: list[Damage] = []
    said: list[str] = []
    for place, node in enumerate(nodes):
        obstacle: Obstacle = build(node, Obstacle, plugins=plugins, at=f"data.obstacles.{place}")
        taught = table.filter(table.splits != "test")
        try:
            obstacle.fit(table, taught)
            if isinstance(obstacle, Damage):
                damages.append(obstacle)
                said.append(
                    f"{obstacle.name}, severity {obstacle.severity:g}: {obstacle.says}, in training and validation"
                )
                console.say(said[-1])
                continue
            left = _left(obstacle, taught)
        except ValueError as error:
            raise ValueError(f"key 'data.obstacles.{place}': {error}") from error
        fewer, changed = (
            len(taught) - len(left),
            int((left.table != taught.table.loc[left.table.index]).to_numpy().sum()),
        )
        gone = f"{fewer} studies go, " if fewer else ""
        said.append(
            f"{obstacle.name}, severity {obstacle.severity:g}: {obstacle.says}: {gone}{changed} cells of {len(left)} training "
            f"and validation studies"
        )
        console.say(said[-1])
        if fewer or changed:
            table = rejoined(table, taught, left)
    return Obstructed(table, tuple(damages), tuple(said))


def _left(obstacle: Obstacle, taught: Manifest) -> Manifest:
    from medssml.obstacles import TableObstacle

    if not isinstance(obstacle, TableObstacle):
        raise ValueError(
            f"{obstacle.name} befalls neither the table nor a modality; fix: its parts, one after the other"
        )
    return obstacle.applied(taught)
