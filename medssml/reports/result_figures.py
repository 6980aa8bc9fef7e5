"""Figures of what a model can do and of what it uses: forests, reliability, waterfalls, interactions."""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medssml.reports import words
from medssml.reports.figures import (
    ACCENT,
    COLOURS,
    FAINT,
    INK,
    PANEL,
    PHONE,
    SOFT,
    TRUTH,
    WIDTH,
    canvas,
    membership,
    style,
    svg,
)
from medssml.reports.results import Estimate


@dataclass(frozen=True)
class Measured:
    """One row of a forest: what it is of, its interval, the number of studies, and what would be best possible."""

    name: str
    found: Estimate | None
    n: int | None = None
    best: float | None = None


def forest(
    title: str,
    rows: Sequence[Measured],
    *,
    metric: str,
    chance: float | None,
    modalities: Sequence[str],
    limits: tuple[float, float],
    width: float = WIDTH,
) -> str:
    """A metric with its interval for every set of modalities, and the best possible value where it is known.

    Args:
        title: of the figure.
        rows: one set of modalities each.
        metric: its word.
        chance: what guessing gives.
        modalities: the columns of dots.
        limits: of the axis, the same for all tasks.
        width: of the figure, inches.
    """
    with style(f"forest/{title}/{width}"):
        narrow = width <= PHONE
        figure = Figure(figsize=(width, 0.95 + 0.27 * len(rows)), layout="constrained")
        FigureCanvasAgg(figure)
        matrix, text = (0.2 + 0.36 * len(modalities), 0.95) if narrow else (0.4 + 0.55 * len(modalities), 2.4)
        ratios = [matrix, max(1.0, width - matrix - text), text]
        dots, axes, right = figure.subplots(1, 3, sharey=True, width_ratios=ratios)
        membership(dots, [row.name for row in rows], [(name, words.modality(name)) for name in modalities])
        for height, row in enumerate(rows):
            _whisker(axes, height, row.found, ACCENT)
        best = [(row.best, height) for height, row in enumerate(rows) if row.best is not None]
        if best:
            diamond = {
                "marker": "d",
                "s": 44,
                "facecolors": "none",
                "edgecolors": TRUTH,
                "linewidths": 1.4,
                "zorder": 4,
            }
            axes.scatter(*zip(*best, strict=True), **diamond, label="Bayes predictor")
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.1, handletextpad=0.2)
        if chance is not None:
            axes.axvline(chance, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_xlim(*limits)
        axes.set_xlabel(metric)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(3 if narrow else 7))
        _numbers(right, rows, narrow=narrow)
        return svg(figure, f"{title}: {metric} for every set of modalities; the same numbers are in the table below")


def _numbers(axes: Axes, rows: Sequence[Measured], *, narrow: bool) -> None:
    """The estimates as text beside the forest, with their intervals where there is room."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    head = "estimate" if narrow else "estimate (95 % interval)"
    axes.text(0.0, -0.95, head, fontsize=8.5, color=SOFT, va="center")
    axes.text(1.0, -0.95, "n", fontsize=8.5, color=SOFT, va="center", ha="right")
    for height, row in enumerate(rows):
        value = None if row.found is None else row.found.value
        said = words.figure(value) if narrow else words.interval(row.found)
        axes.text(0.0, height, said, va="center", fontsize=9)
        axes.text(1.0, height, words.count(row.n), va="center", ha="right", fontsize=9, color=SOFT)


def decline(
    title: str, rows: Sequence[Measured], *, metric: str, chance: float | None, limits: tuple[float, float]
) -> str:
    """The metric by the number of modalities that are left, one dot for each set of them, the line through their means."""
    with style(f"decline/{title}"):
        figure, (axes,) = canvas(PANEL, 2.3)
        sizes: dict[int, list[float]] = {}
        for row in rows:
            if row.found is not None and row.name:
                sizes.setdefault(len(words.members(row.name)), []).append(row.found.value)
        left = sorted(sizes, reverse=True)
        for size in left:
            axes.scatter([size] * len(sizes[size]), sizes[size], s=20, color=COLOURS[4], linewidths=0, zorder=3)
        axes.plot(
            left, [float(np.mean(sizes[size])) for size in left], color=ACCENT, marker="o", markersize=4, zorder=4
        )
        if chance is not None:
            axes.axhline(chance, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_ylim(*limits)
        axes.set_xlim(max(left) + 0.3, min(left) - 0.3)
        axes.set_xticks(left)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set(xlabel="modalities that the model sees", ylabel=metric)
        n = max((row.n for row in rows if row.n is not None), default=None)
        axes.set_title(f"{title}, n = {words.count(n)}")
        return svg(figure, f"{title}: {metric} by the number of modalities that the model sees")


def _whisker(axes: Axes, height: float, found: Estimate | None, colour: str) -> None:
    if found is None:
        return
    if found.low is not None and found.high is not None:
        axes.plot(
            [found.low, found.high], [height, height], color=colour, linewidth=1.8, solid_capstyle="round", zorder=3
        )
    axes.scatter([found.value], [height], s=34, color=colour, zorder=5)


def reliability(bins: Sequence[tuple[float, float, float]], title: str) -> str:
    """Observed share against predicted probability, from (expected, observed, number of studies) per bin."""
    with style(f"reliability/{title}"):
        figure, (axes,) = canvas(PANEL, PANEL + 0.1)
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
        most = max(count for *_, count in bins)
        x, y = [b[0] for b in bins], [b[1] for b in bins]
        axes.plot(x, y, color=ACCENT, linewidth=1.2)
        sizes = [12 + 36 * count / most for *_, count in bins]
        axes.scatter(x, y, s=sizes, color=ACCENT, zorder=3, clip_on=False)
        ticks = [0, 0.25, 0.5, 0.75, 1]
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks)
        axes.set(xlabel="predicted probability", ylabel="share that came true")
        axes.set_title(f"{title}, n = {words.count(sum(count for *_, count in bins))}")
        axes.set_aspect("equal")
        return svg(figure, f"Reliability of the predicted probabilities: {title}")


@dataclass(frozen=True)
class Step:
    """One modality of a waterfall: its word, its share, and its true share where that is known."""

    name: str
    share: Estimate
    truth: float | None = None


def waterfall(
    title: str,
    start: tuple[str, float],
    steps: Sequence[Step],
    end: str,
    unit: str,
    *,
    limits: tuple[float, float] | None = None,
    width: float = WIDTH,
) -> str:
    """From what is known without any modality to what is predicted with all, one step per modality.

    Args:
        title: of the figure.
        start: word and value of knowing nothing.
        steps: one modality each.
        end: word of the last value.
        unit: of the axis.
        limits: of the axis; by default as far as the values reach.
        width: of the figure, inches.
    """
    with style(f"waterfall/{title}/{width}"):
        narrow = width <= PHONE
        figure, (axes,) = canvas(width, 1.1 + (0.44 if narrow else 0.38) * (len(steps) + 2))
        axes.use_sticky_edges = False
        level, last = start[1], len(steps) + 1
        beside = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 9, "linespacing": 1.25}
        axes.scatter([level], [0], s=40, color=SOFT, zorder=3)
        axes.text(1.02, 0, words.figure(level), **beside)
        for height, step in enumerate(steps, start=1):
            _stair(axes, height, level, step, limits)
            # Beside the axes, not beside the bar, where a number would stand at the diamond and read as its value.
            axes.text(1.02, height, _share(step, narrow=narrow), **beside)
            level += step.share.value
        axes.plot([level, level], [last - 1, last], color=FAINT, linewidth=0.9, zorder=1)
        axes.scatter([level], [last], s=40, color=INK, zorder=3)
        axes.text(1.02, last, words.figure(level), weight="bold", **beside)
        axes.set_yticks(range(last + 1), [start[0], *[step.name for step in steps], end], color=INK)
        axes.set_ylim(last + 0.6, -0.6)
        axes.margins(x=0.06)
        _value_axis(axes, unit, limits, narrow=narrow)
        if any(step.truth is not None for step in steps):
            _diamonds(axes, "the bar's end for the Bayes predictor")
        return svg(figure, f"{title}: from {start[0]} to {end} in {unit}, modality by modality")


def _value_axis(axes: Axes, unit: str, limits: tuple[float, float] | None, *, narrow: bool) -> None:
    """The axis of the values, below rows that need no line of their own."""
    if limits is not None:
        axes.set_xlim(*limits)
    axes.set_xlabel(_lines(unit, narrow=narrow))
    axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 8))
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _diamonds(axes: Axes, label: str) -> None:
    """Says what the diamonds are."""
    axes.scatter([], [], **_DIAMOND, label=label)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.1, handletextpad=0.2)


def _share(step: Step, *, narrow: bool, digits: int = 3) -> str:
    """ "+0.136 (0.079 to 0.179)", the interval below where there is little room; the true share where it is known."""
    said, found = words.signed(step.share.value, digits), step.share
    if found.low is not None and found.high is not None:
        ends = f"{words.figure(found.low, digits)} to {words.figure(found.high, digits)}"
        said += f"{chr(10) if narrow else ' '}({ends})"
    if step.truth is not None and not narrow:
        said += f"   Bayes {words.signed(step.truth)}"
    return said


_DIAMOND = {"marker": "d", "s": 44, "facecolors": "none", "edgecolors": TRUTH, "linewidths": 1.4, "zorder": 6}


def _stair(axes: Axes, height: int, level: float, step: Step, limits: tuple[float, float] | None) -> None:
    """One modality's bar, from `level` on, with its interval at its end."""
    share = step.share
    axes.barh(height, share.value, left=level, height=0.5, color=ACCENT if share.value >= 0 else COLOURS[3], zorder=2)
    axes.plot([level, level], [height - 1, height + 0.25], color=FAINT, linewidth=0.9, zorder=1)
    if share.low is not None and share.high is not None:
        ends = np.clip([level + share.low, level + share.high], *(limits or (-np.inf, np.inf)))
        axes.plot(ends, [height, height], color=INK, linewidth=1.2, zorder=4)
    if step.truth is not None:
        axes.scatter([level + step.truth], [height], **_DIAMOND)


def intervals(
    title: str,
    rows: Sequence[Step],
    unit: str,
    *,
    level: float = 0.0,
    limits: tuple[float, float] | None = None,
    width: float = WIDTH,
    digits: int = 3,
) -> str:
    """One interval a row beside the line of `level`, its numbers beside the axes, and the true value where it is known.

    Args:
        title: of the figure.
        rows: one interval each.
        unit: of the axis.
        level: where a line is drawn.
        limits: of the axis, the same for all tasks; by default as far as the values reach.
        width: of the figure, inches.
        digits: after the point.
    """
    with style(f"intervals/{title}/{width}"):
        narrow = width <= PHONE
        figure, (axes,) = canvas(width, 0.9 + (0.44 if narrow else 0.34) * len(rows))
        beside = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 9, "linespacing": 1.25}
        for height, row in enumerate(rows):
            _whisker(axes, height, row.share, ACCENT)
            if row.truth is not None:
                axes.scatter([row.truth], [height], **_DIAMOND)
            axes.text(1.02, height, _share(row, narrow=narrow, digits=digits).replace("+", ""), **beside)
        axes.axvline(level, color=SOFT, linewidth=0.9)
        names = [textwrap.fill(row.name, 18) if narrow else row.name for row in rows]
        axes.set_yticks(range(len(rows)), names, color=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        _value_axis(axes, unit, limits, narrow=narrow)
        if any(row.truth is not None for row in rows):
            _diamonds(axes, "Bayes predictor")
        return svg(figure, f"{title}: {unit}, with 95 % intervals")


def shared_limits(
    rows: Iterable[Step], level: float, within: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float]:
    """The ends of an axis that several figures share, as far as any of their intervals reaches, within what is possible."""
    ends = [level]
    for row in rows:
        ends += [end for end in (row.share.low, row.share.value, row.share.high) if end is not None]
    room = 0.04 * (max(ends) - min(ends) or 1.0)
    return max(within[0], min(ends) - room), min(within[1], max(ends) + room)


def strips(title: str, effects: Mapping[str, Sequence[tuple[float, str]]], unit: str, *, width: float = WIDTH) -> str:
    """Every study's effect of each modality, one dot each, coloured by its label.

    Args:
        title: of the figure.
        effects: modality's word -> (effect, label or "") of the studies that have it.
        unit: of the effects.
        width: of the figure, inches.
    """
    with style(f"strips/{title}/{width}"):
        labels = sorted({label for pairs in effects.values() for _, label in pairs if label})
        named = labels if 0 < len(labels) <= 6 else []
        figure, (axes,) = canvas(width, 0.8 + 0.55 * len(effects) + (0.25 if named else 0))
        colours = {"": FAINT, **dict(zip(labels, COLOURS, strict=False))}
        for height, (name, pairs) in enumerate(effects.items()):
            values = np.array([value for value, _ in pairs])
            spread = _swarm(values, seed=zlib.crc32(f"{title}/{name}".encode()))
            shade = [colours.get(label, FAINT) for _, label in pairs]
            many = len(values) > 2000
            axes.scatter(values, height + spread, s=13, c=shade, alpha=0.6, linewidths=0, rasterized=many)
        axes.axvline(0, color=SOFT, linewidth=0.9)
        rows = [f"{name}\nn = {len(pairs):,}" for name, pairs in effects.items()]
        axes.set_yticks(range(len(effects)), rows, color=INK)
        axes.set_ylim(len(effects) - 0.5, -0.5)
        axes.set_xlabel(_lines(unit, narrow=width <= PHONE))
        axes.xaxis.set_major_locator(MaxNLocator(4 if width <= PHONE else 8))
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        for label in named:
            axes.scatter([], [], s=22, color=colours[label], label=f"label {label}")
        if named:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, handletextpad=0.1, borderaxespad=0.1)
        return svg(figure, f"{title}: effect of each modality in every study")


def _lines(text: str, *, narrow: bool) -> str:
    """An axis' words, on several lines where they are longer than a phone is wide."""
    return textwrap.fill(text, 36) if narrow else text


def _swarm(values: np.ndarray, seed: int) -> np.ndarray:
    """Vertical offsets, wide where there are many equal values."""
    if len(values) < 2 or np.ptp(values) == 0:
        return np.zeros(len(values))
    counts, edges = np.histogram(values, bins=min(60, max(8, len(values) // 4)))
    dense = counts[np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(counts) - 1)] / counts.max()
    return np.random.default_rng(seed).uniform(-0.36, 0.36, len(values)) * np.sqrt(dense)


def interactions(
    title: str, names: Sequence[str], values: Mapping[tuple[str, str], float], counts: Mapping[tuple[str, str], int]
) -> str:
    """The mean interaction of every pair of modalities, and how many studies have both, as a lower triangle."""
    with style(f"interactions/{title}"):
        count = len(names)
        figure, (axes,) = canvas(1.3 + 0.78 * (count - 1), 0.7 + 0.5 * (count - 1))
        most = max((abs(value) for value in values.values()), default=0.0) or 1.0
        table = np.full((count - 1, count - 1), np.nan)
        for pair, value in values.items():
            i, j = sorted((names.index(pair[0]), names.index(pair[1])))
            table[j - 1, i] = value
            # On a cell's own colour, which the dark does not turn.
            ink = "#ffffff" if abs(value) > 0.7 * most else "#10202f"
            said = words.signed(value) + (f"\nn = {counts[pair]:,}" if pair in counts else "")
            axes.text(i, j - 1, said, ha="center", va="center", color=ink, fontsize=8.5)
        edges = np.arange(count) - 0.5
        cells = axes.pcolormesh(edges, edges, table, cmap="RdBu", vmin=-most, vmax=most)
        axes.set(xlim=(-0.5, count - 1.5), ylim=(count - 1.5, -0.5))
        axes.set_xticks(range(count - 1), [words.modality(name) for name in names[:-1]], color=INK)
        axes.set_yticks(range(count - 1), [words.modality(name) for name in names[1:]], color=INK)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        scale = figure.colorbar(cells, ax=axes, ticks=[-most, 0, most], format=lambda value, _: words.signed(value, 2))
        scale.outline.set_visible(False)
        return svg(figure, f"{title}: interaction of every pair of modalities")
