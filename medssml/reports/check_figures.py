"""Figures of the page of a check: how numbers are spread, and what files look like."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from medssml.checks.pictures import Picture
from medssml.reports.figures import ACCENT, FAINT, INK, PANEL, canvas, palette, style, svg

#: Width of one histogram, inches.
PANEL_OF_FOUR = 2.5
_BINS = 24
_WIDE = 30.0
_TRACE_PIXELS = (320, 288)


def histogram(title: str, values: NDArray[np.float64], name: str) -> str:
    """How one property of the files is spread; a logarithmic axis where values span more than 30-fold."""
    with style(f"histogram/{name}/{title}"):
        figure, (axes,) = canvas(PANEL_OF_FOUR, 1.8)
        _histogram(axes, f"{title}, n = {len(values):,}", values)
        return svg(figure, f"Histogram of {name}: {title}")


def _histogram(axes: Axes, title: str, values: NDArray[np.float64]) -> None:
    low, high = float(values.min()), float(values.max())
    logarithmic = low > 0 and high / low > _WIDE
    if low == high:
        axes.bar([0], [len(values)], width=0.3, color=ACCENT)
        axes.set_xticks([0], [f"{low:g}"])
        axes.set_xlim(-1, 1)
    else:
        edges = np.geomspace(low, high, _BINS + 1) if logarithmic else np.linspace(low, high, _BINS + 1)
        axes.hist(values, bins=list(edges), color=ACCENT)
        if logarithmic:
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_title(title, fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.tick_params(labelsize=8.5)
    axes.grid(axis="x", visible=False)


def balance(task: str, counts: Mapping[str, Mapping[str, int]]) -> str:
    """How many studies of each split have each class, as the share of its bar. counts: split -> class -> studies."""
    with style(f"balance/{task}"):
        classes = list(dict.fromkeys(name for found in counts.values() for name in found))
        columns = 1 if max(map(len, classes), default=0) > 11 else 2
        figure, (axes,) = canvas(PANEL, 0.9 + 0.36 * len(counts) + 0.19 * math.ceil(len(classes) / columns))
        for height, found in enumerate(counts.values()):
            left, total = 0.0, sum(found.values())
            for name, colour in palette(classes).items():
                share = found.get(name, 0) / max(total, 1)
                axes.barh(height, share, left=left, height=0.6, color=colour)
                left += share
        axes.set_yticks(range(len(counts)), [f"{s}, n = {sum(f.values()):,}" for s, f in counts.items()], color=INK)
        axes.set(xlim=(0, 1), ylim=(len(counts) - 0.4, -0.6), xlabel="share of the labelled studies")
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_title(task)
        for name, colour in palette(classes).items():
            axes.barh(0, 0, color=colour, label=name)
        figure.legend(loc="outside lower center", ncols=columns, handlelength=1, handleheight=1, columnspacing=1.0)
        return svg(figure, f"Classes of {task} in each split")


def address(picture: Picture) -> str:
    """A picture as the address of an image that carries its own data."""
    from PIL import Image

    pixels = _traces(picture) if picture.pixels is None else picture.pixels
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _traces(picture: Picture) -> NDArray[np.uint8]:
    """(H, W, 3) the traces of a recording one above the other, each channel on its own line."""
    if picture.traces is None:
        raise ValueError("the picture holds neither pixels nor traces")
    traces = picture.traces
    width, height = _TRACE_PIXELS
    with style("traces"):
        figure, (axes,) = canvas(width / 100, height / 100)
        spread = float(np.quantile(np.abs(traces), 0.98)) or 1.0
        time = np.linspace(0, picture.seconds, traces.shape[1])
        for line, trace in enumerate(traces):
            axes.plot(time, trace / (2 * spread) - line, color=ACCENT, linewidth=0.9)
            axes.axhline(-line, color=FAINT, linewidth=0.8, zorder=0)
        axes.set(yticks=[], xlim=(0, picture.seconds), ylim=(-len(traces), 1))
        axes.tick_params(labelsize=13)
        axes.set_xlabel("s", fontsize=13)
        figure.set_dpi(100)
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
