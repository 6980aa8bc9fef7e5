"""What the cells of `medssml study obstacles` come to: ranks of recipes, what obstacles cost, gaps to Bayes, what helps where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medssml.evaluation.bayes import read_truth
from medssml.files import write_json
from medssml.reports.obstacles_page import write_obstacles_page
from medssml.statistics.bootstrap import Array, intervals, over_seeds
from medssml.studies.obstacles_answers import SAME, UNDAMAGED
from medssml.studies.obstacles_cells import Design
from medssml.studies.obstacles_grid import REFERENCE, Grid, read_answers
from medssml.studies.obstacles_measures import Question, minus
from medssml.studies.ranks import mean_ranks

#: (recipe, case) -> its answers of all seeds.
Cells = dict[tuple[str, str], pd.DataFrame]


def write_results(grid: Grid) -> None:
    """results.json, protocol.json and results.html of the cells that are there."""
    design = grid.design
    results = tabulate(grid.lines, design)
    protocol = protocol_of(design, grid.lines)
    write_json(design.out / "results.json", results)
    write_json(design.out / "protocol.json", protocol)
    write_obstacles_page(design.out / "results.html", results, protocol)


def tabulate(lines: Sequence[dict[str, Any]], design: Design) -> dict[str, Any]:
    """What all cells come to.

    Returns:
        {"recipes": [names, the best on validation first], "against": the first that was asked,
        "ranks": {recipe: {"validation": mean rank, "same": interval, "undamaged": interval}},
        "cases": {case: {obstacle, severity, at, says}},
        "tasks": {task: {case: {recipe: what `Question.measured` says}}},
        "gains": {obstacle: {recipe: AUROC minus that of `against`, the mean over tasks and severities}},
        "chosen": {obstacle: recipe that is best on validation}, "failed": {"recipe, case": why}}
    """
    cells, cases, failed = _read(lines, design)
    recipes = [name for name in dict.fromkeys(line["recipe"] for line in lines) if (name, REFERENCE.name) in cells]
    truth = read_truth(design.manifest.parent / "truth.csv")
    asked = {
        (task, case, recipe): Question(cells[recipe, case], task, truth, design.bootstrap)
        for task in design.tasks
        for case in (REFERENCE.name, *cases)
        for recipe in recipes
        if (recipe, case) in cells
    }
    shared = [(task, case) for task in design.tasks for case in cases if _all_answer(asked, task, case, recipes)]
    ranks = standing(asked, recipes, shared, design.bootstrap)
    obstacles = list(dict.fromkeys(case["obstacle"] for case in cases.values()))
    by_obstacle = {o: [(task, case) for task, case in shared if cases[case]["obstacle"] == o] for o in obstacles}
    return {
        "recipes": list(ranks) or recipes,
        "against": recipes[0] if recipes else None,
        "ranks": ranks,
        "cases": cases,
        "tasks": {task: _of_task(asked, task, cases, recipes) for task in design.tasks},
        "gains": {o: gains(asked, recipes, questions, design.bootstrap) for o, questions in by_obstacle.items()},
        "chosen": {o: chosen(asked, recipes, questions) for o, questions in by_obstacle.items() if questions},
        "failed": failed,
    }


def _read(lines: Sequence[dict[str, Any]], design: Design) -> tuple[Cells, dict[str, Any], dict[str, str]]:
    """The answers of the cells; the cases; which cells could not be measured."""
    from medssml.obstacles.together import named

    cases: dict[str, Any] = {}
    failed: dict[str, str] = {}
    parts: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for line in lines:
        case = f"{line['obstacle']}_{line['severity']:g}" if line["obstacle"] else REFERENCE.name
        if "failed" in line:
            failed[f"{line['recipe']}, {case}"] = line["failed"]
            continue
        if line["obstacle"]:
            cases[case] = {name: line[name] for name in ("obstacle", "severity", "at")} | {
                "says": "; ".join(part.says for part in named(line["obstacle"]))
            }
        parts.setdefault((line["recipe"], case), []).append(read_answers(design.out, line))
    # A recipe that a seed is lacking of is no match for the others.
    most = max((len(tables) for tables in parts.values()), default=0)
    whole = {cell: pd.concat(tables) for cell, tables in parts.items() if len(tables) == most}
    return whole, cases, failed


def _all_answer(asked: Mapping[tuple[str, str, str], Question], task: str, case: str, recipes: Sequence[str]) -> bool:
    found = [asked.get((task, case, recipe)) for recipe in recipes]
    return all(one is not None and one.answerable for one in found)


def _of_task(
    asked: Mapping[tuple[str, str, str], Question], task: str, cases: Mapping[str, Any], recipes: Sequence[str]
) -> dict[str, Any]:
    """{case: {recipe: what `Question.measured` says}}, the reference first."""
    return {
        case: {
            recipe: asked[task, case, recipe].measured(asked[task, REFERENCE.name, recipe])
            for recipe in recipes
            if (task, case, recipe) in asked
        }
        for case in (REFERENCE.name, *cases)
    }


def standing(
    asked: Mapping[tuple[str, str, str], Question],
    recipes: Sequence[str],
    questions: Sequence[tuple[str, str]],
    bootstrap: int,
) -> dict[str, Any]:
    """Recipes by their mean rank over (task, obstacle, severity) on validation studies; that on test studies."""
    if not questions or len(recipes) < 2:
        return {}

    def answers(column: str, split: str) -> dict[str, pd.DataFrame]:
        return {
            recipe: pd.concat([asked[t, c, recipe].said(column, split).assign(task=f"{t}, {c}") for t, c in questions])
            for recipe in recipes
        }

    names = [f"{task}, {case}" for task, case in questions]
    val = dict(zip(recipes, mean_ranks(answers(SAME, "val"), names), strict=True))
    same, undamaged = (
        dict(zip(recipes, mean_ranks(answers(column, "test"), names, bootstrap), strict=True))
        for column in (SAME, UNDAMAGED)
    )
    return {
        name: {"validation": val[name].estimate, "same": same[name].to_dict(), "undamaged": undamaged[name].to_dict()}
        for name in sorted(recipes, key=lambda name: (val[name].estimate, recipes.index(name)))
    }


def chosen(
    asked: Mapping[tuple[str, str, str], Question], recipes: Sequence[str], questions: Sequence[tuple[str, str]]
) -> str:
    """The recipe of the highest mean AUROC on validation studies."""
    found = {recipe: np.mean([asked[t, c, recipe].validated() for t, c in questions]) for recipe in recipes}
    return max(found, key=lambda name: float(found[name]))


def gains(
    asked: Mapping[tuple[str, str, str], Question],
    recipes: Sequence[str],
    questions: Sequence[tuple[str, str]],
    bootstrap: int,
) -> dict[str, Any]:
    """Recipe -> its AUROC under the obstacle minus that of the first recipe, the mean over questions, with its interval."""
    if not questions:
        return {}
    first = recipes[0]
    studies = pd.concat([asked[t, c, first].test[["study_id", "subject"]] for t, c in questions])
    people = studies.drop_duplicates("study_id")
    place = pd.Index(people["study_id"])

    def of(recipe: str) -> dict[str, Any]:
        pairs = [(asked[t, c, recipe], asked[t, c, first]) for t, c in questions]
        rows = [place.get_indexer(pd.Index(own.study_id)) for own, _ in pairs]
        figures = [minus(own.auroc_of(SAME), other.auroc_of(SAME)) for own, other in pairs]

        def mean(weights: Array) -> Array:
            return np.mean([figure(weights[:, at]) for figure, at in zip(figures, rows, strict=True)], axis=0)

        statistic = over_seeds(mean, len(pairs[0][0].scores[SAME]), seed=0)
        return intervals(statistic, people["subject"].to_numpy(), n=bootstrap)[0].to_dict()

    return {recipe: of(recipe) for recipe in recipes[1:]}


def protocol_of(design: Design, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the numbers are: printed beside them."""
    import medssml

    seeds = len({line["seed"] for line in lines})
    absent = f"{design.missing:.0%} of the modalities absent at random" if design.missing else "all modalities present"
    return {
        "medssml": medssml.__version__,
        "cohort": f"{design.studies} simulated studies of the small preset, the same for all recipes and seeds; {absent} "
        "before any obstacle",
        "pretraining": f"{design.pretraining.stem}, one model per seed, on the undamaged training studies without labels: all "
        "cells of a seed begin with the same weights, and what differs is the fine-tuning alone",
        "fine-tuning": f"{design.steps} steps for every recipe, otherwise as it says; {design.labels:.0%} of the labelled "
        "training subjects; all tasks at once; the weights at the end; float32",
        "obstacle": "training and validation studies suffer it together, with the severity of the cell; a damage of one "
        "modality befalls validation and test alone unless it is called taught, and labels that are at fault are those of "
        "training and validation. What befalls a study follows from its id, and is the same for all recipes and seeds: the "
        "draw of the obstacle is in no interval",
        "test": "undamaged studies, and the same ones under the same obstacle (untaught: by the model of the recipe that never "
        "suffered it; reversed: absence by the other class)",
        "order": "mean rank over tasks, obstacles and severities by AUROC on validation studies, which suffer as those of "
        "training do, their labels too; all other figures are of test studies",
        "gap to Bayes": "the AUROC of the best possible answers minus the model's, on undamaged test studies, the mean over all "
        "subsets of modalities; the worst subset is that of the largest gap",
        "price": "what being taught with the obstacle costs on complete test studies, seen whole, beside the same recipe taught "
        "without",
        "interval": f"95 %, {design.bootstrap} resamples of subjects, and of the seeds where there are several; ranks: of "
        "subjects. Nothing is corrected for the number of comparisons: of 40 gains of nothing, one lies above 0, one below",
        "seeds": "1: another seed may order the recipes otherwise" if seeds == 1 else seeds,
        "search": "none: each recipe has one setting, that of its config",
    }
