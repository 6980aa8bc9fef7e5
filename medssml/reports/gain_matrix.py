"""A table of gains as a figure: methods in rows, tasks or modalities in columns, coloured by what they gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medssml.reports import words
from medssml.reports.figures import INK, PHONE, WIDTH, canvas, style, svg
from medssml.reports.results import Estimate


def gain_matrix(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    gains: Mapping[tuple[str, str], Estimate],
    *,
    most: float,
    width: float = WIDTH,
) -> str:
    """A cell per row and column; a gain whose interval does not hold 0 is bold.

    Args:
        title: of the figure.
        rows, columns: names.
        gains: (row, column) -> the gain; what is not there stays empty.
        most: the gain of the deepest colour, the same for all figures of a page.
        width: of the figure, inches.
    """
    with style(f"gains/{title}/{width}"):
        narrow = width <= PHONE
        figure, (axes,) = canvas(width, 0.9 + 0.27 * len(rows))
        table = np.full((len(rows), len(columns)), np.nan)
        for (row, column), gain in gains.items():
            at = rows.index(row), columns.index(column)
            table[at] = gain.value
            # On a cell's own colour, which the dark does not turn.
            ink = "#ffffff" if abs(gain.value) > 0.7 * most else "#10202f"
            weight = "bold" if apart_from_nothing(gain) else "normal"
            said = words.signed(gain.value, 2)
            axes.text(
                at[1], at[0], said, ha="center", va="center", color=ink, weight=weight, fontsize=7.5 if narrow else 9
            )
        edges = np.arange(len(columns) + 1) - 0.5, np.arange(len(rows) + 1) - 0.5
        axes.pcolormesh(*edges, table, cmap="RdBu", vmin=-most, vmax=most, edgecolors="white", linewidth=1.2)
        axes.set_xticks(
            range(len(columns)), columns, color=INK, rotation=40 if narrow else 0, ha="left" if narrow else "center"
        )
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(rows)), rows, color=INK, fontsize=7.5 if narrow else 9)
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        axes.grid(False)
        axes.spines[:].set_visible(False)
        return svg(figure, f"{title}: {', '.join(columns)} for {len(rows)} methods")


def apart_from_nothing(gain: Estimate) -> bool:
    """Whether the interval of a gain does not hold 0."""
    return gain.low is not None and gain.high is not None and (gain.low > 0 or gain.high < 0)
