"""The studies of a training as obstacles leave them: those of training and validation suffer, those of the test never."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medssml.config import Node
    from medssml.manifest.manifest import Manifest


def obstructed(table: Manifest, nodes: Sequence[Node], plugins: Collection[str] = ()) -> Manifest:
    """The table with what the obstacles of `data.obstacles` do to its training and validation studies, in their order.

    Args:
        table: all studies.
        nodes: of table obstacles: absence, exchange, labels.
        plugins: packages that classes may come from.

    Raises:
        medssml.config.ConfigError: no such obstacle. ValueError: it has nothing to act on in these studies.
    """
    from medssml.config import build
    from medssml.obstacles import TableObstacle
    from medssml.runs import console

    for place, node in enumerate(nodes):
        obstacle: TableObstacle = build(node, TableObstacle, plugins=plugins, at=f"data.obstacles.{place}")
        taught = table.filter(table.splits != "test")
        try:
            obstacle.fit(table, taught)
            left = obstacle.applied(taught)
        except ValueError as error:
            raise ValueError(f"key 'data.obstacles.{place}': {error}") from error
        fewer, changed = (
            len(taught) - len(left),
            int((left.table != taught.table.loc[left.table.index]).to_numpy().sum()),
        )
        gone = f"{fewer} studies go, " if fewer else ""
        console.say(
            f"{obstacle.name}, severity {obstacle.severity:g}: {obstacle.says}: {gone}{changed} cells of {len(left)} training "
            f"and validation studies"
        )
        if fewer or changed:
            cells = table.table.drop(taught.table.index.difference(left.table.index))
            cells.loc[left.table.index] = left.table
            table = replace(table, table=cells)
    return table
