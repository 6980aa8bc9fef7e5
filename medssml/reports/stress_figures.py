"""Curves over severity: a metric with its interval, what guessing gives, and the best that is possible."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from medssml.reports.figures import ACCENT, PANEL, SOFT, TRUTH, canvas, palette, style, svg
from medssml.reports.results import Estimate


@dataclass(frozen=True)
class OverSeverity:
    """One obstacle's curve.

    Args:
        title: its name and the number of studies.
        severity: of each point, ascending.
        found: the metric at each, None where there is none.
        best: the best possible at each; empty where it is not known.
    """

    title: str
    severity: Sequence[float]
    found: Sequence[Estimate | None]
    best: Sequence[float | None] = ()


def over_severity(
    curve: OverSeverity, name: str, unit: str, *, chance: float | None, limits: tuple[float, float]
) -> str:
    """One panel.

    Args:
        curve: what is drawn.
        name: keeps its ids apart from those of others.
        unit: of the metric.
        chance: what guessing gives.
        limits: of the metric's axis, the same for all panels of the page.
    """
    with style(f"over_severity/{name}/{curve.title}"):
        figure, (axes,) = canvas(PANEL, 2.35)
        known = [(x, e) for x, e in zip(curve.severity, curve.found, strict=True) if e is not None]
        ends = [(x, e.low, e.high) for x, e in known if e.low is not None and e.high is not None]
        if ends:
            where, low, high = zip(*ends, strict=True)
            axes.fill_between(where, low, high, color=ACCENT, alpha=0.18, linewidth=0)
        axes.plot([x for x, _ in known], [e.value for _, e in known], color=ACCENT, marker="o", markersize=4, zorder=4)
        best = [(x, b) for x, b in zip(curve.severity, curve.best, strict=False) if b is not None]
        if best:
            axes.plot(*zip(*best, strict=True), color=TRUTH, marker="d", markersize=4, linestyle=(0, (2, 2)), zorder=3)
        if chance is not None:
            axes.axhline(chance, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_title(textwrap.fill(curve.title, 44))
        axes.set(xlim=(0, 1), ylim=limits, xlabel="severity", ylabel=unit)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return svg(
            figure, f"{curve.title}: {unit} by severity, with 95 % intervals; the numbers are in the table below"
        )


@dataclass(frozen=True)
class Line:
    """One curve among several: severities, values, and what the legend calls it. reference: nothing learned, drawn apart."""

    name: str
    severity: Sequence[float]
    value: Sequence[float]
    reference: bool = False


def lines_over_severity(title: str, lines: Sequence[Line], unit: str, *, limits: tuple[float, float]) -> str:
    """One panel with several curves.

    Args:
        title: of the panel.
        lines: drawn in the colours of their order, the same in all panels that have the same lines.
        unit: of the metric.
        limits: of the metric's axis, the same for all panels of the page.
    """
    with style(f"lines_over_severity/{title}"):
        names = [line.name for line in lines]
        columns = 1 if max(map(len, names), default=0) > 18 else 2
        figure, (axes,) = canvas(PANEL, 2.3 + 0.19 * -(-len(names) // columns))
        colours = palette([line.name for line in lines if not line.reference])
        for line in lines:
            own = {"color": SOFT, "linestyle": (0, (2, 2)), "marker": "d", "markersize": 3.6}
            if not line.reference:
                own = {"color": colours[line.name], "marker": "o", "markersize": 3.6}
            axes.plot(line.severity, line.value, label=line.name, **own)
        axes.set_title(textwrap.fill(title, 44))
        axes.set(xlim=(-0.02, 1.02), ylim=limits, xlabel="severity", ylabel=unit)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.yaxis.set_major_locator(MaxNLocator(5))
        figure.legend(loc="outside lower center", ncols=columns, handlelength=1.4, labelspacing=0.2, columnspacing=1.0)
        return svg(figure, f"{title}: {unit} by severity; the numbers are in the table below")
