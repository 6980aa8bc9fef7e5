"""What each measure of impact says of the best possible predictor of the simulated cohort: its answers are known exactly.

A trained model has errors of its own; here every difference between modalities is a fact about the cohort.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gallery.drawing import INK, SOFT, Array, dots, figure, zero
from medssml.counterfactual.measure import Answers, Measure
from medssml.counterfactual.measures import (
    Interaction,
    InteractionShare,
    Necessity,
    PerformanceDrop,
    PerformanceShapley,
    Quality,
    ShapleyValue,
    Sufficiency,
    Swap,
)
from medssml.counterfactual.summary import Resampling
from medssml.counterfactual.values import Value
from medssml.phantom import MODALITIES, Design, draw
from medssml.phantom.causes import STRENGTH
from medssml.phantom.truth import posterior, posteriors, subsets
from medssml.reports.figures import COLOURS, FAINT
from medssml.reports.words import modality as modality_word
from medssml.statistics.bootstrap import Interval

TASK, STUDIES, DONORS = "deterioration", 400, 12
NAMES = [modality_word(name) for name in MODALITIES]
COLOUR = dict(zip(NAMES, COLOURS, strict=False))


@cache
def cohort() -> pd.DataFrame:
    """Studies with nothing missing."""
    return draw(Design(studies=STUDIES, seed=1, missing=0.0))


@cache
def answers() -> Answers:
    """The best predictor's answers under every intervention."""
    table = cohort()
    known = posteriors(table, TASK)
    # Bit m of a coalition's number says whether modality m is in it.
    by_mask = {sum(1 << MODALITIES.index(part) for part in name.split("+") if part): name for name in subsets()}
    values = np.stack([known[by_mask[mask]] for mask in range(1 << len(MODALITIES))], axis=1)
    return Answers(
        value=Value("binary", "probability", np.ones(len(table))),
        has=np.ones((len(table), len(MODALITIES)), dtype=bool),
        values=values,
        empty_error=np.zeros(len(table)),
        swapped=swapped(table),
        scores=values,
        y=table[f"label_{TASK}"].to_numpy(float),
    )


def swapped(table: pd.DataFrame) -> Array:
    """(N, M, D) answers with a modality of each of D other subjects."""
    rng, everything = np.random.default_rng(0), "+".join(MODALITIES)
    found = np.empty((len(table), len(MODALITIES), DONORS))
    for column, modality in enumerate(MODALITIES):
        own = [f"evidence_{modality}_{finding}" for finding in STRENGTH[modality]]
        for donor in range(DONORS):
            other = (np.arange(len(table)) + rng.integers(5, len(table) - 5)) % len(table)
            made = table.assign(**{name: table[name].to_numpy()[other] for name in own})
            found[:, column, donor] = posterior(made, TASK, everything)
    return found


def how() -> Resampling:
    """How intervals are made."""
    return Resampling(cohort()["subject"].to_numpy(), n=300)


def example() -> int:
    """A study in which modalities disagree: the widest spread of its Shapley values."""
    return int(np.ptp(ShapleyValue()(answers()), axis=1).argmax())


def chance(axes: Axes, rows: Sequence[tuple[str, float, float, str]], title: str) -> None:
    """Rows (name, from, to, colour) of one study, as arrows between two probabilities with the difference."""
    for height, (_, start, end, colour) in enumerate(rows):
        axes.annotate("", (end, height), (start, height), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})
        axes.scatter([start], [height], s=22, color=colour, zorder=3)
        axes.text(max(start, end) + 0.03, height, f"{end - start:+.2f}", va="center", fontsize=8.5, color=INK)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows], color=INK)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.15), xlabel=f"probability of {TASK}", title=title)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.grid(False, axis="y")


def cohort_of(axes: Axes, measure: Measure, xlabel: str) -> None:
    """A dot for each study; the mean size with its interval below the name."""
    numbers = measure(answers())
    found = {f.of: f.interval for f in measure.findings([answers()], MODALITIES, how()) if f.quantity.endswith("_abs")}
    names = [f"{word}\n{said(found[name])}" for word, name in zip(NAMES, MODALITIES, strict=True)]
    dots(axes, list(numbers.T), names, [COLOUR[name] for name in NAMES])
    zero(axes)
    axes.set(xlabel=xlabel, title=f"{STUDIES} studies, mean size")


def said(interval: Interval) -> str:
    """An estimate with its interval."""
    return f"{interval.estimate:.3f} ({interval.ci_low:.3f} to {interval.ci_high:.3f})"


def per_study(measure: Measure, rows: Callable[[int], list[tuple[str, float, float, str]]], xlabel: str) -> Figure:
    """One study as arrows, and all studies as dots."""
    made, axes = figure(3.2, columns=2)
    chance(axes[0], rows(example()), "one study")
    cohort_of(axes[1], measure, xlabel)
    return made


def necessity() -> Figure:
    def rows(study: int) -> list[tuple[str, float, float, str]]:
        v = answers().values[study]
        return [(f"{n} taken away", v[15 - (1 << m)], v[15], COLOUR[n]) for m, n in enumerate(NAMES)]

    return per_study(Necessity(), rows, "with it, less without it")


def sufficiency() -> Figure:
    def rows(study: int) -> list[tuple[str, float, float, str]]:
        v = answers().values[study]
        return [(f"{n} alone", v[0], v[1 << m], COLOUR[n]) for m, n in enumerate(NAMES)]

    return per_study(Sufficiency(), rows, "it alone, less nothing")


def swap() -> Figure:
    def rows(study: int) -> list[tuple[str, float, float, str]]:
        v, other = answers().values[study], answers().swapped[study].mean(axis=-1)
        return [(f"{n} of others", other[m], v[15], COLOUR[n]) for m, n in enumerate(NAMES)]

    return per_study(Swap(), rows, "its own, less that of others")


def shapley_value() -> Figure:
    """The way from nothing to everything, in the steps of one study."""

    def rows(study: int) -> list[tuple[str, float, float, str]]:
        level, found = answers().values[study, 0], []
        for name, share in zip(NAMES, ShapleyValue()(answers())[study], strict=True):
            found.append((name, level, level + share, COLOUR[name]))
            level += share
        return found

    return per_study(ShapleyValue(), rows, "share of the prediction")


def interaction() -> Figure:
    """Pairs of modalities, a dot for each study."""
    numbers, pairs = Interaction()(answers()), [(i, j) for i in range(4) for j in range(i + 1, 4)]
    every = Interaction().findings([answers()], MODALITIES, how())
    found = {f.of: f.interval for f in every if f.quantity.endswith("_abs")}
    made, axes = figure(3.8)
    words = [f"{NAMES[i]} and {NAMES[j]}\n{said(found[f'{MODALITIES[i]},{MODALITIES[j]}'])}" for i, j in pairs]
    dots(axes[0], [numbers[:, i, j] for i, j in pairs], words, [COLOURS[0]] * len(pairs))
    zero(axes[0])
    axes[0].set_title(f"{STUDIES} studies, mean size")
    axes[0].set(xlabel="interaction: below 0 they repeat each other, above 0 they say more together")
    return made


def interaction_share() -> Figure:
    """Both orders of averaging."""
    found = {f.of: f.interval for f in InteractionShare().findings([answers()], MODALITIES, how())}
    words = {"mean_of_abs": "mean of sizes: no cancelling", "abs_of_mean": "size of means: opposite signs cancel"}
    made, axes = figure(1.7)
    whiskers(axes[0], [(words[order], found[order]) for order in words], [COLOURS[0]] * 2)
    axes[0].set(xlim=(0, 1), xlabel="share of the answers that is interaction between modalities")
    return made


def whiskers(axes: Axes, rows: Sequence[tuple[str, Interval]], colours: Sequence[str]) -> None:
    """An estimate and its 95 % interval in every row."""
    for height, ((_, interval), colour) in enumerate(zip(rows, colours, strict=True)):
        low, at, high = interval.ci_low, interval.estimate, interval.ci_high
        axes.plot([low, high], [height, height], color=colour, linewidth=2)
        axes.scatter([at], [height], color=colour, s=36, zorder=3)
        axes.text(at, height - 0.22, said(interval), ha="center", va="bottom", fontsize=8.5)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], color=INK)
    axes.set_ylim(len(rows) - 0.5, -0.75)
    axes.grid(False, axis="y")


def quality() -> Figure:
    """The AUROC from all that each study has, beside chance."""
    (found,) = Quality().findings([answers()], MODALITIES, how())
    made, axes = figure(1.3)
    whiskers(axes[0], [("from all modalities", found.interval)], [COLOURS[0]])
    axes[0].axvline(0.5, color=SOFT, linewidth=0.9)
    axes[0].text(0.505, 0, "chance", color=SOFT, va="center", fontsize=8.5)
    axes[0].set(xlim=(0.45, 1.0), xlabel="AUROC")
    return made


def performance_drop() -> Figure:
    """What the AUROC loses without each modality."""
    found = {f.of: f.interval for f in PerformanceDrop().findings([answers()], MODALITIES, how())}
    made, axes = figure(2.6)
    rows = [(modality_word(name), found[name]) for name in MODALITIES]
    whiskers(axes[0], rows, [COLOUR[name] for name, _ in rows])
    zero(axes[0])
    axes[0].set(xlabel="AUROC from all modalities, less that without this one")
    return made


def performance_shapley() -> Figure:
    """From chance to the AUROC of all modalities, a step for each."""
    found = PerformanceShapley().findings([answers()], MODALITIES, how())
    share = {f.of: f.interval for f in found if f.quantity == "performance_shapley"}
    made, axes = figure(2.6)
    level = 0.5
    for height, name in enumerate(MODALITIES):
        interval, word = share[name], modality_word(name)
        axes[0].barh(height, interval.estimate, left=level, color=COLOUR[word], height=0.55)
        axes[0].text(max(level, level + interval.estimate) + 0.008, height, said(interval), va="center", fontsize=8.5)
        level += interval.estimate
        axes[0].plot([level, level], [height, height + 1], color=FAINT, linewidth=0.8)
    axes[0].text(level + 0.008, 4, f"{level:.3f} from all", va="center", fontsize=8.5, color=SOFT)
    axes[0].set_yticks(range(5), [*NAMES, "together"], color=INK)
    axes[0].set(xlim=(0.5, 1.0), ylim=(4.5, -0.6), xlabel="AUROC; 0.5 is chance")
    axes[0].grid(False, axis="y")
    return made


FIGURES: dict[str, Callable[[], Figure]] = {
    "necessity": necessity,
    "sufficiency": sufficiency,
    "swap": swap,
    "shapley": shapley_value,
    "interactions": interaction,
    "interaction_share": interaction_share,
    "quality": quality,
    "performance_drop": performance_drop,
    "performance_shapley": performance_shapley,
}
