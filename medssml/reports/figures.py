"""Figures of the report: numbers in, one inline SVG out. Colours keep apart for colour-blind eyes and on paper.

Ink, lines and accents are written as variables of the page's style sheet, so that a figure follows the page into the dark.
A figure that is wider than a phone is drawn twice, for `WIDTH` and for `PHONE`; the page shows the one that fits.
"""

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
#: Width of the page's column and of a phone's, and of one of several small panels, inches.
WIDTH, PHONE, PANEL = 10.3, 4.0, 3.2
#: Colours that the page may turn, by the variable of its style sheet that holds them.
_TURNED = {INK: "ink", SOFT: "soft", FAINT: "faint", RULE: "rule"} | {c: f"c{i}" for i, c in enumerate(COLOURS)}

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
    for colour, variable in _TURNED.items():
        text = text.replace(colour.lower(), f"var(--{variable})")
    # The page decides the size; the view box keeps the proportions.
    head, rest = text.split(">", 1)
    width = re.search(r'width="([\d.]+)pt"', head)
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    size = f"max-width:{float(width.group(1)) * 96 / 72:.0f}px" if width else ""
    return f'{head} role="img" aria-label="{escape(words)}" style="{size}">{rest}'


def palette(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def coverage(
    patterns: Sequence[tuple[str, Mapping[str, int]]], modalities: Sequence[tuple[str, str]], width: float = WIDTH
) -> str:
    """Which modalities studies have together, and how many do.

    Args:
        patterns: (subset name, split -> number of studies).
        modalities: (name, word).
        width: of the figure, inches.
    """
    with style(f"coverage/{width}"):
        splits = list(dict.fromkeys(split for _, counts in patterns for split in counts))
        figure = Figure(figsize=(width, 1.1 + 0.3 * len(patterns)), layout="constrained")
        FigureCanvasAgg(figure)
        column = 0.55 if width > PHONE else 0.4
        matrix = 0.3 + column * len(modalities)
        dots, bars = figure.subplots(1, 2, sharey=True, width_ratios=[matrix, max(1.0, width - matrix)])
        membership(dots, [pattern for pattern, _ in patterns], modalities)
        _stacked(bars, patterns, splits)
        return svg(
            figure, "Number of studies for each set of modalities, by split; the same numbers are in the table below"
        )


def membership(axes: Axes, subsets: Sequence[str], modalities: Sequence[tuple[str, str]]) -> None:
    """A dot where a set of modalities, one a row, has the (name, word) of the column, joined along the row."""
    for height, subset in enumerate(subsets):
        have = [column for column, (name, _) in enumerate(modalities) if name in subset.split("+")]
        axes.scatter(range(len(modalities)), [height] * len(modalities), s=40, color=RULE, zorder=2)
        if have:
            axes.plot(have, [height] * len(have), color=INK, linewidth=1.3, zorder=3)
            axes.scatter(have, [height] * len(have), s=40, color=INK, zorder=4)
    axes.set_xticks(range(len(modalities)), [word for _, word in modalities], color=INK)
    axes.xaxis.tick_top()
    axes.set(xlim=(-0.6, len(modalities) - 0.4), ylim=(len(subsets) - 0.4, -0.6), yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _stacked(axes: Axes, patterns: Sequence[tuple[str, Mapping[str, int]]], splits: Sequence[str]) -> None:
    """Bars of studies per pattern, one piece per split, the total behind them."""
    shades = dict(zip(splits, (COLOURS[0], COLOURS[4], COLOURS[5], COLOURS[6]), strict=False))
    for height, (_, counts) in enumerate(patterns):
        left = 0
        for split in splits:
            axes.barh(height, counts.get(split, 0), left=left, height=0.62, color=shades.get(split, FAINT))
            left += counts.get(split, 0)
        axes.annotate(f"{left:,}", (left, height), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)
    for split in splits:
        axes.barh(0, 0, color=shades.get(split, FAINT), label=split)
    if len(splits) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(splits), handlelength=1, handleheight=1)
    total = sum(sum(counts.values()) for _, counts in patterns)
    axes.set_xlabel(f"studies, {total:,} in all")
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
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
    """One small plot: a title, curves, the value of chance or of the ideal where there is one, and whether all values are
    shares, from 0 to 1."""

    title: str
    curves: Sequence[Curve]
    level: float | None = None
    share: bool = False


def curves(panel: Panel, name: str) -> str:
    """One panel of learning curves; `name` keeps its ids apart from those of others."""
    with style(f"curves/{name}/{panel.title}"):
        many = len(panel.curves) > 1
        columns = 1 if max(len(curve.name) for curve in panel.curves) > 18 else 2
        below = math.ceil(len(panel.curves) / columns) if many else 0
        figure, (axes,) = canvas(PANEL, 2.05 + 0.19 * below)
        front = [curve for curve in panel.curves if not curve.behind]
        colours = palette([curve.name for curve in front])
        for curve in panel.curves:
            shown = {"color": FAINT, "linewidth": 1.1} if curve.behind else {"color": colours[curve.name]}
            marker = {"marker": "o", "markersize": 2.6} if len(curve.x) <= 25 and not curve.behind else {}
            axes.plot(curve.x, curve.y, label=curve.name, **shown, **marker)
        if panel.level is not None:
            axes.axhline(panel.level, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_title(panel.title)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("steps")
        if panel.share:
            low, high = axes.get_ylim()
            axes.set_ylim(max(0.0, low), min(1.0, high))
        if many:
            figure.legend(
                loc="outside lower center", ncols=columns, handlelength=1.2, labelspacing=0.2, columnspacing=1.0
            )
        return svg(figure, f"Learning curves: {panel.title}, by optimiser step")


@dataclass(frozen=True)
class Colouring:
    """A way to colour the embedding map: a title, and for each point a group, or "" where it is not known."""

    title: str
    groups: Sequence[str]


def embedding_map(x: Sequence[float], y: Sequence[float], colouring: Colouring, name: str) -> str:
    """The map of studies, coloured by one thing; `name` keeps its ids apart from those of other maps."""
    with style(f"embedding_map/{name}/{colouring.title}"):
        names = sorted({group for group in colouring.groups if group})
        # Two columns where two names fit beside each other.
        columns = 1 if max(map(len, names), default=0) > 11 else min(2, max(len(names), 1))
        figure, (axes,) = canvas(PANEL, PANEL + 0.15 + 0.19 * math.ceil(len(names) / columns))
        _scatter(axes, x, y, colouring, names)
        if names:
            figure.legend(
                loc="outside lower center", ncols=columns, markerscale=1.3, handletextpad=0.1, columnspacing=0.8,
                labelspacing=0.25,
            )  # fmt: skip
        return svg(figure, f"Map of the studies' embeddings, coloured by {colouring.title}")


def _scatter(axes: Axes, x: Sequence[float], y: Sequence[float], colouring: Colouring, names: Sequence[str]) -> None:
    size = max(4.0, min(26.0, 6000 / max(len(x), 1)))
    many = len(x) > 3000
    unknown = [i for i, group in enumerate(colouring.groups) if not group]
    axes.scatter([x[i] for i in unknown], [y[i] for i in unknown], s=size, color=RULE, linewidths=0, rasterized=many)
    for name, colour in palette(names).items():
        rows = [i for i, group in enumerate(colouring.groups) if group == name]
        points = {"s": size, "color": colour, "linewidths": 0, "alpha": 0.75, "rasterized": many}
        axes.scatter([x[i] for i in rows], [y[i] for i in rows], label=f"{name}: {len(rows):,}", **points)
    axes.set_title(colouring.title)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(RULE)
    axes.set_aspect("equal", adjustable="datalim")
