"""Figures of the report: numbers in, one inline SVG out. Colours keep apart for colour-blind eyes and on paper."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

#: Okabe and Ito's colours, the yellow left out as it does not show on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A6A5D", "#332288", "#882255", "#44AA99")
INK, SOFT, FAINT, RULE = "#1f2a37", "#5b6777", "#aab3bf", "#e4e8ed"
ACCENT, TRUTH = "#0072B2", "#D55E00"
#: Width of the page's column, inches.
WIDTH = 10.3

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Liberation Sans", "Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
}


@contextmanager
def style(name: str) -> Iterator[None]:
    """Our look, and ids that are the same each time and differ between the figures of a page."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        yield


def canvas(width: float, height: float, columns: int = 1, rows: int = 1, **layout: Any) -> tuple[Figure, list[Axes]]:
    """A figure of width x height inches and its axes, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **layout)
    return figure, list(axes.flat)


def svg(figure: Figure, words: str) -> str:
    """The figure as an SVG element to be put into a page; `words` say what it shows to whoever cannot see it."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # The page decides the size; the view box keeps the proportions.
    head, rest = text.split(">", 1)
    width = re.search(r'width="([\d.]+)pt"', head)
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    size = f"max-width:{float(width.group(1)) * 96 / 72:.0f}px" if width else ""
    return f'{head} role="img" aria-label="{escape(words)}" style="{size}">{rest}'


def palette(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def coverage(patterns: Sequence[tuple[str, Mapping[str, int]]], modalities: Sequence[tuple[str, str]]) -> str:
    """Which modalities studies have together, and how many do.

    Args:
        patterns: (subset name, split -> number of studies).
        modalities: (name, word).
    """
    with style("coverage"):
        splits = list(dict.fromkeys(split for _, counts in patterns for split in counts))
        figure = Figure(figsize=(WIDTH, 0.75 + 0.3 * len(patterns)), layout="constrained")
        FigureCanvasAgg(figure)
        dots, bars = figure.subplots(1, 2, sharey=True, width_ratios=[0.45 + 0.55 * len(modalities), 6.5])
        heights = range(len(patterns))

        # A dot where the modality is there, joined along the row.
        for height, (pattern, _) in zip(heights, patterns, strict=True):
            have = [column for column, (name, _) in enumerate(modalities) if name in pattern.split("+")]
            dots.scatter(range(len(modalities)), [height] * len(modalities), s=46, color=RULE, zorder=2)
            if have:
                dots.plot(have, [height] * len(have), color=INK, linewidth=1.4, zorder=3)
                dots.scatter(have, [height] * len(have), s=46, color=INK, zorder=4)
        dots.set_xticks(range(len(modalities)), [word for _, word in modalities], color=INK)
        dots.xaxis.tick_top()
        dots.set(xlim=(-0.6, len(modalities) - 0.4), ylim=(len(patterns) - 0.5, -0.6), yticks=[])
        dots.grid(False)
        dots.spines[:].set_visible(False)

        _stacked(bars, patterns, splits)
        return svg(
            figure, "Number of studies for each set of modalities, by split; the same numbers are in the table below"
        )


def _stacked(axes: Axes, patterns: Sequence[tuple[str, Mapping[str, int]]], splits: Sequence[str]) -> None:
    """Bars of studies per pattern, one piece per split, the total behind them."""
    shades = dict(zip(splits, ("#0072B2", "#7fb8d8", "#E69F00", "#7A6A5D"), strict=False))
    for height, (_, counts) in enumerate(patterns):
        left = 0
        for split in splits:
            axes.barh(height, counts.get(split, 0), left=left, height=0.62, color=shades.get(split, FAINT))
            left += counts.get(split, 0)
        axes.annotate(f"{left:,}", (left, height), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)
    for split in splits:
        axes.barh(0, 0, color=shades.get(split, FAINT), label=split)
    if len(splits) > 1:
        axes.legend(loc="lower right", ncols=len(splits), handlelength=1, handleheight=1)
    axes.set_xlabel("studies")
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


@dataclass(frozen=True)
class Curve:
    """One line of a panel: steps, values, what the legend calls it, and whether it is drawn in the back."""

    x: Sequence[float]
    y: Sequence[float]
    name: str = ""
    behind: bool = False


@dataclass(frozen=True)
class Panel:
    """One small plot: a title, curves, and the value of chance or of the ideal where there is one."""

    title: str
    curves: Sequence[Curve]
    level: float | None = None
    log: bool = False


def curves(panels: Sequence[Panel], name: str) -> str:
    """Learning curves, three panels to a row."""
    with style(f"curves/{name}"):
        columns = min(3, len(panels))
        rows = math.ceil(len(panels) / columns)
        figure, axes = canvas(WIDTH * (1.0 if columns == 3 else 0.36 * columns), 2.15 * rows, columns, rows)
        for place, panel in zip(axes, panels, strict=False):
            _panel(place, panel)
        for place in axes[len(panels) :]:
            place.set_visible(False)
        return svg(figure, "Learning curves: " + ", ".join(panel.title for panel in panels))


def _panel(axes: Axes, panel: Panel) -> None:
    front = [curve for curve in panel.curves if not curve.behind]
    colours = palette([curve.name for curve in front])
    for curve in panel.curves:
        shown = {"color": FAINT, "linewidth": 1.1} if curve.behind else {"color": colours[curve.name]}
        marker = {"marker": "o", "markersize": 2.6} if len(curve.x) <= 25 and not curve.behind else {}
        axes.plot(curve.x, curve.y, label=curve.name, **shown, **marker)
    if panel.level is not None:
        axes.axhline(panel.level, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
    if panel.log:
        axes.set_yscale("log")
    axes.set_title(panel.title)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if not panel.log:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    compact = {"handlelength": 1.2, "labelspacing": 0.2, "borderaxespad": 0.2}
    if len(panel.curves) > 3:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "ncols": 2, "columnspacing": 1.0}
        axes.legend(**compact, **below, fontsize=7.5)
    elif len(panel.curves) > 1:
        axes.legend(**compact, loc="best")


@dataclass(frozen=True)
class Colouring:
    """A way to colour the embedding map: a title, and for each point a group, or "" where it is not known."""

    title: str
    groups: Sequence[str]


def embedding_map(x: Sequence[float], y: Sequence[float], colourings: Sequence[Colouring]) -> str:
    """The same map of studies several times, coloured by one thing each."""
    with style("embedding_map"):
        columns = min(3, len(colourings))
        rows = math.ceil(len(colourings) / columns)
        size = WIDTH / 3 if columns == 3 else 4.0
        figure, axes = canvas(size * columns, (size + 0.25) * rows, columns, rows)
        for place, colouring in zip(axes, colourings, strict=False):
            _scatter(place, x, y, colouring)
        for place in axes[len(colourings) :]:
            place.set_visible(False)
        return svg(figure, "Map of the studies' embeddings, coloured by " + ", ".join(c.title for c in colourings))


def _scatter(axes: Axes, x: Sequence[float], y: Sequence[float], colouring: Colouring) -> None:
    size = max(4.0, min(26.0, 6000 / max(len(x), 1)))
    unknown = [i for i, group in enumerate(colouring.groups) if not group]
    axes.scatter(
        [x[i] for i in unknown], [y[i] for i in unknown], s=size, color=RULE, linewidths=0, rasterized=len(x) > 3000
    )
    counts: dict[str, int] = {}
    for group in colouring.groups:
        if group:
            counts[group] = counts.get(group, 0) + 1
    names = sorted(counts)
    for name, colour in palette(names).items():
        rows = [i for i, group in enumerate(colouring.groups) if group == name]
        points = {"s": size, "color": colour, "linewidths": 0, "alpha": 0.75, "rasterized": len(x) > 3000}
        axes.scatter([x[i] for i in rows], [y[i] for i in rows], label=name, **points)
    axes.set_title(colouring.title)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(RULE)
    axes.set_aspect("equal", adjustable="datalim")
    if names:
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2 if len(names) > 2 else len(names), markerscale=1.3,
            handletextpad=0.1, columnspacing=0.8, labelspacing=0.25,
        )  # fmt: skip
