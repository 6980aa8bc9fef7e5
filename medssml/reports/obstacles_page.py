"""The page of a study of obstacles: recipes by rank, what each obstacle costs, what helps against it, every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medssml import provenance
from medssml.files import write_text
from medssml.reports import words
from medssml.reports.blocks import Block, Fold, Heading, Judged, Panels, Plot, Section, Table, Text, fitting
from medssml.reports.gain_matrix import gain_matrix
from medssml.reports.page import html
from medssml.reports.results import Estimate, estimate, number
from medssml.reports.stress_figures import Line, lines_over_severity
from medssml.reports.stress_page import named

#: The case without an obstacle.
UNDAMAGED = "undamaged"
#: Columns of the headline table beside the ranks: key in results, words.
HEADLINE = (
    ("same", "AUROC, same obstacle"),
    ("undamaged", "AUROC, undamaged"),
    ("gap", "gap to Bayes"),
    ("price", "price when complete"),
    ("ece", "calibration error"),
)
#: Columns of the tables with all numbers.
EVERY = (
    ("same", "same obstacle"),
    ("untaught", "same, untaught"),
    ("reversed", "reversed"),
    ("undamaged", "undamaged"),
    ("cost", "cost"),
    ("price", "price when complete"),
    ("gap", "gap to Bayes"),
    ("ece", "calibration error"),
)


def write_obstacles_page(path: str | Path, results: Mapping[str, Any], protocol: Mapping[str, Any]) -> Path:
    """Writes one offline HTML page.

    Args:
        path: the file.
        results, protocol: as `medssml.studies.obstacles_results` makes them.
    """
    sections = [_ranks(results), _curves(results), _helps(results), _reference(results), _numbers(results)]
    lines: list[Block] = [Text(f"{name}: {value}") for name, value in protocol.items()]
    if results["failed"]:
        lines.append(Heading("Not measured"))
        lines.append(Table(["cell", "why"], [[cell, why] for cell, why in results["failed"].items()], left=2))
    sections.append(Section("protocol", "Protocol", "What was done to get these numbers.", lines))
    said = judged(results)
    recipes, obstacles = len(results["recipes"]), len(results["gains"])
    text = html(
        "Obstacles", [section for section in sections if section is not None], verdict=Judged(said) if said else None,
        origin=provenance.said(provenance.entry("study")), made_from=" from results.json",
        about=f"{recipes} recipes of fine-tuning, {obstacles} obstacles, on the same simulated studies.",
    )  # fmt: skip
    return write_text(path, text)


def judged(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, mark, sentence): the recipe that validation prefers, then what helps against each obstacle."""
    found: list[tuple[str, str, str]] = []
    best = next(iter(results["ranks"]), None)
    if best is not None:
        ranks = results["ranks"][best]
        rank = words.interval(estimate(ranks["same"]), 2)
        said = (
            f"{best} has the best mean rank on validation studies; on test studies under the same obstacle it is {rank}"
        )
        clear = _clear_of_others(results)
        mark = words.BETTER if clear else words.EVEN
        found.append(("order", mark, f"{said}{'' if clear else '; intervals overlap: the order is not known'}."))
    for obstacle, recipe in results["chosen"].items():
        lost = _mean_of(results, obstacle, results["against"], "cost")
        said = f"costs {results['against']} {words.figure(lost)} AUROC, the mean over tasks and severities"
        gain = estimate(results["gains"].get(obstacle, {}).get(recipe))
        if gain is None:
            found.append((named(obstacle), words.EVEN, f"{said}; no other recipe is better on validation."))
            continue
        said += f"; {recipe}, best on validation, {words.signed(gain.value)} "
        ends = f"({words.figure(gain.low)} to {words.figure(gain.high)}) " if gain.low is not None else ""
        found.append((named(obstacle), words.change(gain), f"{said}{ends}beside it on test."))
    return found


def _clear_of_others(results: Mapping[str, Any]) -> bool:
    """Whether the first recipe's interval of ranks lies below those of all others."""
    first, *others = (estimate(ranks["same"]) for ranks in results["ranks"].values())
    if first is None or first.high is None:
        return False
    return all(other is not None and other.low is not None and first.high < other.low for other in others)


def _cases_of(results: Mapping[str, Any], obstacle: str) -> list[str]:
    """Its cases by severity."""
    cases = results["cases"]
    return sorted((c for c in cases if cases[c]["obstacle"] == obstacle), key=lambda case: cases[case]["severity"])


def mean(results: Mapping[str, Any], cases: Sequence[str], recipe: str, key: str) -> float | None:
    """The mean of a figure over tasks and cases, where all have it."""
    found = [number(by.get(case, {}).get(recipe, {}).get(key)) for by in results["tasks"].values() for case in cases]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known and len(known) == len(found) else None


def _mean_of(results: Mapping[str, Any], obstacle: str, recipe: str, key: str) -> float | None:
    return mean(results, _cases_of(results, obstacle), recipe, key)


def _ranks(results: Mapping[str, Any]) -> Section | None:
    """The headline table: one row a recipe."""
    rows = []
    every = list(results["cases"])
    for recipe in results["recipes"]:
        ranks = results["ranks"].get(recipe, {})
        cells = [words.figure(number(ranks.get("validation")), 2)]
        cells += [words.interval(estimate(ranks.get(key)), 2) for key in ("same", "undamaged")]
        cells += [words.figure(mean(results, every, recipe, key)) for key, _ in HEADLINE]
        rows.append([recipe, *cells, _worst(results, every, recipe)])
    if not rows or not every:
        return None
    columns = ["recipe", "rank, validation", "rank, same obstacle", "rank, undamaged", *(said for _, said in HEADLINE)]
    lead = (
        "Recipes by their mean rank over tasks, obstacles and severities on validation studies, the best, 1, first. The other "
        "figures are of test studies, those after the ranks the mean over all cells. Where the intervals of ranks overlap, the "
        "order is not known."
    )
    return Section("ranks", "Ranks", lead, [Table([*columns, "worst subset"], rows)])


def _worst(results: Mapping[str, Any], cases: Sequence[str], recipe: str) -> str:
    """The largest gap to Bayes of any subset, task and case."""
    by_case = [by.get(case, {}).get(recipe, {}).get("worst") for by in results["tasks"].values() for case in cases]
    found = [entry for entry in by_case if entry]
    return _gap(max(found, key=lambda entry: float(entry["gap"])) if found else None)


def _gap(worst: Mapping[str, Any] | None) -> str:
    return "–" if not worst else f"{words.figure(number(worst['gap']))} {words.subset(worst['subset'])}"


def _curves(results: Mapping[str, Any]) -> Section | None:
    """AUROC over severity, a panel per obstacle, a line per recipe."""
    panels = {obstacle: _lines(results, obstacle) for obstacle in results["gains"]}
    values = [value for lines in panels.values() for line in lines for value in line.value]
    if not values:
        return None
    low, high = min(values), max(values)
    limits = max(0.0, low - 0.02), min(1.0, high + 0.02)
    plots = [
        Plot(lines_over_severity(named(name), lines, "mean AUROC over tasks", limits=limits), _befalls(results, name))
        for name, lines in panels.items()
        if lines
    ]
    lead = (
        "AUROC of test studies under the same obstacle as in training, the mean over tasks; at severity 0 nothing is damaged. "
        "Dashed: the best possible from what is left where modalities are absent, otherwise from undamaged studies, which no "
        "model can hold."
    )
    return Section("severity", "By severity", lead, [Panels(plots)])


def _befalls(results: Mapping[str, Any], obstacle: str) -> str:
    """What happens to a study, and whether to those of training, of test, or both."""
    entry = results["cases"][_cases_of(results, obstacle)[0]]
    return f"{entry['says']}, in {entry['at']}"


def _lines(results: Mapping[str, Any], obstacle: str) -> list[Line]:
    cases = [UNDAMAGED, *_cases_of(results, obstacle)]
    severities = [results["cases"].get(case, {}).get("severity", 0.0) for case in cases]
    # The best possible is the same for all recipes.
    wanted = [(recipe, recipe, "same", False) for recipe in results["recipes"]]
    wanted.append(("Bayes", results["against"], "best", True))
    lines = []
    for name, recipe, key, reference in wanted:
        found = [(s, mean(results, [case], recipe, key)) for s, case in zip(severities, cases, strict=True)]
        known = [(s, value) for s, value in found if value is not None]
        if known:
            lines.append(Line(name, [s for s, _ in known], [v for _, v in known], reference))
    return lines


def _helps(results: Mapping[str, Any]) -> Section | None:
    """The gain of every recipe over the first, obstacle by obstacle."""
    obstacles = [name for name, by in results["gains"].items() if by]
    gains: dict[tuple[str, str], Estimate] = {}
    others = [recipe for recipe in results["recipes"] if recipe != results["against"]]
    for obstacle in obstacles:
        for recipe in others:
            gain = estimate(results["gains"][obstacle].get(recipe))
            if gain is not None:
                gains[named(obstacle), recipe] = gain
    if not gains:
        return None
    most = max(abs(gain.value) for gain in gains.values()) or 0.1
    rows = [named(obstacle) for obstacle in obstacles]
    title = f"Gain over {results['against']}"
    drawn = fitting(lambda width: gain_matrix(title, rows, others, gains, most=most, width=width))
    table = Table(
        ["obstacle", *others],
        [[row, *(words.interval(gains.get((row, recipe))) for recipe in others)] for row in rows],
        "AUROC minus that of the first recipe on test studies under the same obstacle, mean over tasks and severities (95 %).",
    )
    lead = f"What each recipe adds to {results['against']} where studies of training and test suffer the same obstacle."
    said = Text("Bold where the interval does not hold 0.")
    return Section("helps", "What helps", lead, [drawn, said, Fold("With intervals", [table])])


def _reference(results: Mapping[str, Any]) -> Section:
    """Every recipe without any obstacle."""
    tasks = list(results["tasks"])
    rows = []
    for recipe in results["recipes"]:
        entries = [results["tasks"][task].get(UNDAMAGED, {}).get(recipe, {}) for task in tasks]
        cells = [words.interval(estimate(entry.get("undamaged"))) for entry in entries]
        rows.append(
            [recipe, *cells, *(words.figure(mean(results, [UNDAMAGED], recipe, key)) for key in ("gap", "ece"))]
        )
    best = [words.figure(_best(results, task)) for task in tasks]
    rows.append(["Bayes predictor", *best, "–", "–"])
    columns = ["recipe", *tasks, "gap to Bayes", "calibration error"]
    lead = "AUROC on undamaged test studies of models that no obstacle befell (95 %): what the rest is measured by."
    return Section("reference", "Undamaged reference", lead, [Table(columns, rows)])


def _best(results: Mapping[str, Any], task: str) -> float | None:
    found = results["tasks"][task].get(UNDAMAGED, {})
    return next((value for entry in found.values() if (value := number(entry.get("best"))) is not None), None)


def _numbers(results: Mapping[str, Any]) -> Section:
    """A fold per obstacle: every task, severity and recipe."""
    blocks: list[Block] = []
    for obstacle in results["gains"]:
        tables: list[Block] = []
        for task in results["tasks"]:
            tables += [Heading(task), _table(results, task, _cases_of(results, obstacle))]
        blocks.append(Fold(f"{named(obstacle)}: {_befalls(results, obstacle)}", tables))
    lead = (
        "AUROC on test studies (95 % over subjects, and seeds where there are several). Cost: undamaged and untaught minus the "
        "same obstacle. Untaught: the model of the recipe that never suffered the obstacle. Reversed: absence by the other class."
    )
    return Section("numbers", "All numbers", lead, blocks)


def _table(results: Mapping[str, Any], task: str, cases: Sequence[str]) -> Table:
    """One task under one obstacle; columns that nothing has are left out."""
    entries = [
        (case, recipe, entry)
        for case in cases
        for recipe in results["recipes"]
        if (entry := results["tasks"][task].get(case, {}).get(recipe))
    ]
    kept = [(key, said) for key, said in EVERY if any(number(entry.get(key)) is not None for *_, entry in entries)]
    rows = []
    for case, recipe, entry in entries:
        cells = [words.interval(estimate(entry.get(key))) for key, _ in kept]
        rows.append([f"{results['cases'][case]['severity']:g}", recipe, *cells, _gap(entry.get("worst"))])
    return Table(["severity", "recipe", *(said for _, said in kept), "worst subset"], rows, left=2)
