"""Figures of what a model can do and of what it uses: forests, reliability, waterfalls, interactions."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medssml.reports import words
from medssml.reports.figures import ACCENT, COLOURS, FAINT, INK, RULE, SOFT, TRUTH, WIDTH, canvas, style, svg
from medssml.reports.results import Estimate


@dataclass(frozen=True)
class Measured:
    """One row of a forest: what it is of, its interval, the number of studies, and what would be best possible."""

    name: str
    found: Estimate | None
    n: int | None = None
    best: float | None = None


def forest(
    title: str, rows: Sequence[Measured], *, metric: str, chance: float | None, modalities: Sequence[str]
) -> str:
    """A metric with its interval for every set of modalities, and the best possible value where it is known."""
    with style(f"forest/{title}"):
        figure = Figure(figsize=(WIDTH, 0.85 + 0.27 * len(rows)), layout="constrained")
        FigureCanvasAgg(figure)
        ratios = [0.4 + 0.55 * len(modalities), 5.6, 2.2]
        dots, axes, right = figure.subplots(1, 3, sharey=True, width_ratios=ratios)
        _membership(dots, [row.name for row in rows], modalities)

        for height, row in enumerate(rows):
            _whisker(axes, height, row.found, ACCENT)
        best = [(row.best, height) for height, row in enumerate(rows) if row.best is not None]
        if best:
            place = [value for value, _ in best], [height for _, height in best]
            axes.scatter(
                *place,
                marker="d",
                s=44,
                facecolors="none",
                edgecolors=TRUTH,
                linewidths=1.4,
                zorder=4,
                label="Bayes predictor",
            )
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.1, handletextpad=0.2)
        if chance is not None:
            axes.axvline(chance, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_xlabel(metric)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(7))

        _numbers(right, rows)
        return svg(figure, f"{title}: {metric} for every set of modalities; the same numbers are in the table below")


def _membership(axes: Axes, subsets: Sequence[str], modalities: Sequence[str]) -> None:
    """Dots: which modalities each row has."""
    for height, name in enumerate(subsets):
        have = [column for column, modality in enumerate(modalities) if modality in words.members(name)]
        axes.scatter(range(len(modalities)), [height] * len(modalities), s=36, color=RULE, zorder=2)
        if have:
            axes.plot(have, [height] * len(have), color=INK, linewidth=1.2, zorder=3)
            axes.scatter(have, [height] * len(have), s=36, color=INK, zorder=4)
    axes.set_xticks(range(len(modalities)), [words.modality(name) for name in modalities], color=INK)
    axes.xaxis.tick_top()
    axes.set(xlim=(-0.6, len(modalities) - 0.4), ylim=(len(subsets) - 0.4, -0.6), yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _numbers(axes: Axes, rows: Sequence[Measured]) -> None:
    """The intervals as text beside the forest."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.text(0.0, -0.95, "estimate (95 % interval)", fontsize=8.5, color=SOFT, va="center")
    axes.text(1.0, -0.95, "n", fontsize=8.5, color=SOFT, va="center", ha="right")
    for height, row in enumerate(rows):
        axes.text(0.0, height, words.interval(row.found), va="center", fontsize=9)
        axes.text(1.0, height, words.count(row.n), va="center", ha="right", fontsize=9, color=SOFT)


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
        figure, (axes,) = canvas(3.3, 3.3)
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
        most = max(count for *_, count in bins)
        x, y = [b[0] for b in bins], [b[1] for b in bins]
        axes.plot(x, y, color=ACCENT, linewidth=1.2)
        axes.scatter(x, y, s=[12 + 36 * count / most for *_, count in bins], color=ACCENT, zorder=3)
        ticks = [0, 0.25, 0.5, 0.75, 1]
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=ticks, yticks=ticks)
        axes.set(xlabel="predicted probability", ylabel="share that came true")
        axes.set_title(title)
        axes.set_aspect("equal")
        return svg(figure, f"Reliability of the predicted probabilities: {title}")


@dataclass(frozen=True)
class Step:
    """One modality of a waterfall: its word, its share, and its true share where that is known."""

    name: str
    share: Estimate
    truth: float | None = None


def waterfall(title: str, start: tuple[str, float], steps: Sequence[Step], end: str, unit: str) -> str:
    """From what is known without any modality to what is predicted with all, one step per modality."""
    with style(f"waterfall/{title}"):
        figure, (axes,) = canvas(WIDTH, 1.0 + 0.38 * (len(steps) + 2))
        axes.use_sticky_edges = False
        level, last = start[1], len(steps) + 1
        axes.scatter([level], [0], s=40, color=SOFT, zorder=3)
        for height, step in enumerate(steps, start=1):
            _stair(axes, height, level, step)
            level += step.share.value
        axes.plot([level, level], [last - 1, last], color=FAINT, linewidth=0.9, zorder=1)
        axes.scatter([level], [last], s=40, color=INK, zorder=3)
        for height, value in ((0, start[1]), (last, level)):
            beside = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "weight": "bold"}
            axes.annotate(words.figure(value), (value, height), **beside)
        axes.set_yticks(range(last + 1), [start[0], *[step.name for step in steps], end], color=INK)
        axes.set_ylim(last + 0.6, -0.6)
        axes.set_xlabel(unit)
        axes.margins(x=0.1)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        if any(step.truth is not None for step in steps):
            axes.scatter([], [], **_DIAMOND, label="where the bar would end for the Bayes predictor")
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1, handletextpad=0.2)
        return svg(figure, f"{title}: from {start[0]} to {end} in {unit}, modality by modality")


_DIAMOND = {"marker": "d", "s": 44, "facecolors": "none", "edgecolors": INK, "linewidths": 1.3, "zorder": 6}


def _stair(axes: Axes, height: int, level: float, step: Step) -> None:
    """One modality's bar, from `level` on, with its interval at its end."""
    share = step.share
    axes.barh(height, share.value, left=level, height=0.56, color=ACCENT if share.value >= 0 else TRUTH, zorder=2)
    axes.plot([level, level], [height - 1, height + 0.28], color=FAINT, linewidth=0.9, zorder=1)
    reach = max(0.0, share.value)
    if share.low is not None and share.high is not None:
        axes.plot([level + share.low, level + share.high], [height, height], color=INK, linewidth=1.2, zorder=4)
        reach = max(reach, share.high)
    if step.truth is not None:
        axes.scatter([level + step.truth], [height], **_DIAMOND)
        reach = max(reach, step.truth)
    place = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(words.signed(share.value), (level + reach, height), **place)


def strips(title: str, effects: Mapping[str, Sequence[tuple[float, str]]], unit: str) -> str:
    """Every study's effect of each modality, one dot each, coloured by its label.

    Args:
        title: of the figure.
        effects: modality's word -> (effect, label or "") of the studies that have it.
        unit: of the effects.
    """
    with style(f"strips/{title}"):
        figure, (axes,) = canvas(WIDTH, 0.8 + 0.55 * len(effects))
        labels = sorted({label for pairs in effects.values() for _, label in pairs if label})
        colours = {"": FAINT, **dict(zip(labels, COLOURS, strict=False))}
        for height, (name, pairs) in enumerate(effects.items()):
            values = np.array([value for value, _ in pairs])
            spread = _swarm(values, seed=zlib.crc32(f"{title}/{name}".encode()))
            shade = [colours.get(label, FAINT) for _, label in pairs]
            axes.scatter(values, height + spread, s=13, c=shade, alpha=0.6, linewidths=0, rasterized=len(values) > 2000)
        axes.axvline(0, color=SOFT, linewidth=0.9)
        axes.set_yticks(range(len(effects)), list(effects), color=INK)
        axes.set_ylim(len(effects) - 0.5, -0.5)
        axes.set_xlabel(unit)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        for label in labels if len(labels) <= 6 else []:
            axes.scatter([], [], s=22, color=colours[label], label=label)
        if 0 < len(labels) <= 6:
            axes.legend(
                title="label", loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.1, title_fontsize=8.5
            )
        return svg(figure, f"{title}: effect of each modality in every study")


def _swarm(values: np.ndarray, seed: int) -> np.ndarray:
    """Vertical offsets, wide where there are many equal values."""
    if len(values) < 2 or np.ptp(values) == 0:
        return np.zeros(len(values))
    counts, edges = np.histogram(values, bins=min(60, max(8, len(values) // 4)))
    dense = counts[np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(counts) - 1)] / counts.max()
    return np.random.default_rng(seed).uniform(-0.36, 0.36, len(values)) * np.sqrt(dense)


def interactions(title: str, names: Sequence[str], values: Mapping[tuple[str, str], float]) -> str:
    """The mean interaction of every pair of modalities as a lower triangle."""
    with style(f"interactions/{title}"):
        count = len(names)
        figure, (axes,) = canvas(1.2 + 0.95 * count, 0.6 + 0.5 * count)
        most = max((abs(value) for value in values.values()), default=0.0) or 1.0
        table = np.full((count, count), np.nan)
        for (a, b), value in values.items():
            i, j = sorted((names.index(a), names.index(b)))
            table[j, i] = value
            strong = abs(value) > 0.8 * most
            axes.text(i, j, words.signed(value), ha="center", va="center", color="white" if strong else INK, fontsize=9)
        axes.imshow(table, cmap="RdBu", vmin=-1.4 * most, vmax=1.4 * most, aspect="auto")
        axes.set_xticks(range(count - 1), [words.modality(name) for name in names[:-1]], color=INK)
        axes.set_yticks(range(1, count), [words.modality(name) for name in names[1:]], color=INK)
        axes.set(xlim=(-0.5, count - 1.5), ylim=(count - 0.5, 0.5))
        axes.grid(False)
        axes.spines[:].set_visible(False)
        return svg(figure, f"{title}: interaction of every pair of modalities")
