"""How modalities go missing in a simulated cohort, and what each pattern of them can tell at best."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gallery.drawing import INK, RULE, SOFT, figure, grid_of
from medssml.phantom import MODALITIES, TASKS, Design, bayes_auroc, draw, subsets
from medssml.phantom.missingness import Mechanism
from medssml.reports.figures import ACCENT, COLOURS
from medssml.reports.words import modality as modality_word

STUDIES, MISSING = 1500, 0.4
#: Draws behind a Bayes AUROC: a standard error below 0.003.
DRAWS = 8000
#: What absence of each modality is shown against, by mechanism: column, and its words.
AGAINST = {
    "mar": {
        "ct": ("age", "age"),
        "xray": ("age", "age"),
        "eeg": ("age", "age"),
        "report": ("age", "age"),
    },
    "mnar": {
        "ct": ("latent_nodule", "nodule"),
        "xray": ("latent_cardiomegaly", "heart size"),
        "eeg": ("latent_epileptiform", "epileptiform activity"),
        "report": ("latent_effusion", "effusion"),
    },
}
AGAINST["mcar"] = AGAINST["mnar"]


@cache
def cohort(mechanism: Mechanism) -> pd.DataFrame:
    """The studies, without files."""
    return draw(Design(studies=STUDIES, seed=0, missing=MISSING, mechanism=mechanism))


def patterns(axes: Axes, table: pd.DataFrame) -> None:
    """Which modalities studies have together, and how many do."""
    present = table[[f"present_{modality}" for modality in MODALITIES]].to_numpy(bool)
    rows, counts = np.unique(present, axis=0, return_counts=True)
    order = np.argsort(-counts)
    for height, row in enumerate(order):
        have = np.flatnonzero(rows[row])
        axes.scatter(range(4), [height] * 4, s=34, color=RULE, zorder=2)
        axes.plot(have, [height] * len(have), color=INK, linewidth=1.2, zorder=3)
        axes.scatter(have, [height] * len(have), s=34, color=INK, zorder=4)
        axes.barh(height, 4 * counts[row] / counts.max(), left=4.0, height=0.6, color=ACCENT)
        axes.text(4.1 + 4 * counts[row] / counts.max(), height, str(counts[row]), va="center", fontsize=8.5)
    axes.set_xticks(range(4), [modality_word(name) for name in MODALITIES], color=INK)
    axes.xaxis.tick_top()
    axes.set(yticks=[], ylim=(len(order) - 0.4, -0.6), xlim=(-0.5, 9))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"number of the {len(table)} studies with each pattern", color=SOFT)


def dependence(axes: Axes, table: pd.DataFrame, mechanism: str) -> None:
    """The share of studies that lack a modality, by fifths of what its absence depends on."""
    for colour, modality in zip(COLOURS, MODALITIES, strict=False):
        column, words = AGAINST[mechanism][modality]
        fifth = pd.qcut(table[column].rank(method="first"), 5, labels=False)
        absent = 1 - table[f"present_{modality}"].groupby(fifth).mean()
        label = modality_word(modality) + (f", by {words}" if mechanism != "mar" else "")
        axes.plot(range(1, 6), absent, "o-", color=colour, markersize=4, label=label)
    words = "age" if mechanism == "mar" else "the finding"
    axes.set(ylim=(0, 1), xlabel=f"fifth of the cohort by {words}, from the least", ylabel="share that lacks it")
    axes.set_xticks(range(1, 6))
    axes.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.28))


def mechanism_figure(mechanism: Mechanism) -> Callable[[], Figure]:
    """The patterns of one mechanism, and what absence depends on."""

    def made() -> Figure:
        drawn, axes = figure(4.4, columns=2, width_ratios=[1.15, 1])
        patterns(axes[0], cohort(mechanism))
        dependence(axes[1], cohort(mechanism), mechanism)
        return drawn

    return made


def best_of_every_pattern() -> Figure:
    """The AUROC of the best possible predictor of every task, from every subset of modalities."""
    names = [name for name in subsets() if name]
    table = np.array([[bayes_auroc(task, name, n=DRAWS).estimate for task in TASKS] for name in names])
    drawn, axes = figure(4.6)
    rows = [" + ".join(modality_word(part) for part in name.split("+")) for name in names]
    grid_of(axes[0], table, rows, list(TASKS), low=0.5, high=1.0)
    return drawn


FIGURES: dict[str, Callable[[], Figure]] = {
    "mcar": mechanism_figure("mcar"),
    "mar": mechanism_figure("mar"),
    "mnar": mechanism_figure("mnar"),
    "every_pattern": best_of_every_pattern,
}
