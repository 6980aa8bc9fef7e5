"""How figures of the gallery are drawn: images, recordings, words and values, beside each other."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medssml.reports.figures import ACCENT, INK, RULE, SOFT

#: Inches: the column of a page, and what is left of it on a phone.
WIDTH = 8.0
Array = NDArray[np.float64]


def figure(height: float, columns: int = 1, rows: int = 1, **layout: object) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width and its axes, row by row."""
    made = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(made)
    return made, list(made.subplots(rows, columns, squeeze=False, **layout).flat)  # type: ignore[arg-type]


def image(axes: Axes, pixels: Array, title: str, *, low: float = 0.0, high: float = 1.0) -> None:
    """Pixels (H, W), row 0 on top, in gray between `low` and `high`."""
    axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    bare(axes, title)


def bare(axes: Axes, title: str) -> None:
    """Neither ticks nor spines."""
    axes.set_title(title)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def traces(axes: Axes, signal: Array, sfreq: float, names: Sequence[str], title: str, step: float = 120.0) -> None:
    """A recording (C, T) in uV, a channel above the other `step` uV apart."""
    seconds = np.arange(signal.shape[1]) / sfreq
    for row, channel in enumerate(signal):
        axes.plot(seconds, channel - row * step, color=INK, linewidth=0.6)
    axes.set_yticks([-row * step for row in range(len(signal))], names, color=INK)
    axes.set(xlabel="s", ylim=(-(len(signal) - 0.4) * step, 0.9 * step), xlim=(seconds[0], seconds[-1]))
    axes.grid(False, axis="y")
    axes.set_title(title)


def words(axes: Axes, lines: Sequence[tuple[str, str]], title: str, width: int = 46) -> None:
    """Sentences with the colour of each, one below the other, wrapped at `width` characters."""
    bare(axes, title)
    axes.set(xlim=(0, 1), ylim=(1, 0))
    wrapped = [(textwrap.wrap(text, width), colour) for text, colour in lines]
    step = 1 / max(9, sum(len(parts) for parts, _ in wrapped) + 1)
    height = step / 2
    for parts, colour in wrapped:
        for part in parts:
            axes.text(0.0, height, part, color=colour, va="center", fontsize=9)
            height += step


def values(axes: Axes, names: Sequence[str], numbers: Array, title: str, unknown: str = "not known") -> None:
    """Numbers (F,) as bars around 0, and a word where there is none."""
    heights = np.arange(len(names))
    axes.barh(heights, np.nan_to_num(numbers), color=ACCENT, height=0.55)
    axes.axvline(0, color=INK, linewidth=0.8)
    for height in heights[~np.isfinite(numbers)]:
        axes.text(0, height, f"  {unknown}", color=SOFT, va="center", fontsize=8.5)
    axes.set_yticks(heights, names, color=INK)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_title(title)


def grid_of(axes: Axes, table: Array, rows: Sequence[str], columns: Sequence[str], *, low: float, high: float) -> None:
    """A table (R, C) as shades of blue with its numbers."""
    axes.imshow(table, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    for (row, column), number in np.ndenumerate(table):
        ink = "white" if number > low + 0.65 * (high - low) else INK
        axes.text(column, row, f"{number:.2f}", ha="center", va="center", color=ink, fontsize=8.5)
    axes.set_xticks(range(len(columns)), columns, color=INK)
    axes.set_yticks(range(len(rows)), rows, color=INK)
    axes.xaxis.tick_top()
    axes.grid(False)
    axes.spines[:].set_visible(False)


def zero(axes: Axes, *, vertical: bool = True) -> None:
    """A line at 0."""
    (axes.axvline if vertical else axes.axhline)(0, color=SOFT, linewidth=0.9, zorder=1)


def dots(axes: Axes, rows: Sequence[Array], names: Sequence[str], colours: Sequence[str], seed: int = 0) -> None:
    """A dot for each finite value, a row for each name, spread so that they do not hide each other."""
    rng = np.random.default_rng(seed)
    for height, (numbers, colour) in enumerate(zip(rows, colours, strict=True)):
        known = numbers[np.isfinite(numbers)]
        axes.scatter(known, height + rng.uniform(-0.28, 0.28, len(known)), s=5, color=colour, alpha=0.35, linewidths=0)
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(False, axis="y")


__all__ = ["INK", "RULE", "SOFT"]
