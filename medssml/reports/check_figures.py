"""Figures of the page of a check: how numbers are spread, and what files look like."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from medssml.checks.pictures import Picture
from medssml.reports.figures import ACCENT, FAINT, WIDTH, canvas, style, svg

_BINS = 24
_WIDE = 30.0
_TRACE_PIXELS = (320, 288)


def histograms(panels: Sequence[tuple[str, NDArray[np.float64]]], name: str) -> str:
    """One small histogram per property, four to a row; a logarithmic axis where values span more than 30-fold."""
    with style(f"histograms/{name}"):
        columns = 4
        rows = math.ceil(len(panels) / columns)
        figure, axes = canvas(WIDTH, 1.75 * rows, columns, rows)
        for place, (title, values) in zip(axes, panels, strict=False):
            _histogram(place, title, values)
        for place in axes[len(panels) :]:
            place.set_visible(False)
        return svg(figure, f"Histograms of {name}: " + ", ".join(title for title, _ in panels))


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
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", visible=False)


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
