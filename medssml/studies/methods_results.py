"""What the cells of `medssml study methods` come to: the order by mean rank, the gains over random encoders, who wins where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medssml.files import restored, write_json
from medssml.reports.methods_page import write_methods_page
from medssml.statistics.comparison import compare, gains
from medssml.statistics.metrics import auroc, point
from medssml.studies.methods_cells import Design, cell_file
from medssml.studies.methods_probes import ALL
from medssml.studies.ranks import Answers, mean_ranks


def write_results(out: Path, cells: Sequence[Mapping[str, Any]], design: Design) -> None:
    """results.json, protocol.json and results.html of the cells that are there."""
    results = tabulate(out, cells, design.bootstrap)
    protocol = protocol_of(design, cells)
    write_json(out / "results.json", results)
    write_json(out / "protocol.json", protocol)
    write_methods_page(out / "results.html", results, protocol)


def tabulate(out: Path, cells: Sequence[Mapping[str, Any]], bootstrap: int) -> dict[str, Any]:
    """{"labels": {share: what `standing` says}, "cells": {method: [its lines]}, "failed": {method: why}}."""
    done: dict[str, list[Mapping[str, Any]]] = {}
    failed: dict[str, str] = {}
    for cell in cells:
        if "failed" in cell:
            failed[cell["method"]] = cell["failed"]
        else:
            done.setdefault(cell["method"], []).append(cell)
    answers = {name: pd.concat([_read(out, name, line["seed"]) for line in lines]) for name, lines in done.items()}
    shares = dict.fromkeys(share for table in answers.values() for share in table["labels"])
    labels = {
        f"{share:g}": standing({name: t.loc[t["labels"] == share] for name, t in answers.items()}, bootstrap)
        for share in shares
    }
    # What the probes of a cell say is under `labels` for all seeds together.
    lines = {name: [{k: v for k, v in line.items() if k != "probes"} for line in some] for name, some in done.items()}
    return {"labels": labels, "cells": lines, "failed": failed}


def _read(out: Path, method: str, seed: int) -> pd.DataFrame:
    return restored(pd.read_csv(cell_file(out, method, seed, "csv"), dtype={"study_id": str, "subset": str}))


def standing(answers: Answers, bootstrap: int) -> dict[str, Any]:
    """How the methods stand, with the same labels.

    Returns:
        {"ranks": {method, best on validation first: {"validation": mean rank, "test": {estimate, ci_low, ci_high, n}}},
        "winners": {task: method that is best on validation},
        "tasks": {task: {method: {subset: {"auroc": .., "gain": over the random encoder, "validation": .., "seeds": ..}}}}}.
    """
    val = {name: table.loc[table["split"] == "val"] for name, table in answers.items()}
    test = {name: table.loc[table["split"] == "test"] for name, table in answers.items()}
    tasks = [
        task for task in _tasks(answers) if all(_answered(table, task) for table in (*val.values(), *test.values()))
    ]
    ranks = dict(zip(answers, mean_ranks(_whole(val), tasks), strict=True)) if tasks else {}
    tested = dict(zip(answers, mean_ranks(_whole(test), tasks, bootstrap), strict=True)) if tasks else {}
    order = sorted(ranks, key=lambda name: (ranks[name].estimate, name))
    return {
        "ranks": {name: {"validation": ranks[name].estimate, "test": tested[name].to_dict()} for name in order},
        "winners": {task: _best(val, task) for task in tasks},
        "tasks": {task: _of_task(val, test, task, order or list(answers), bootstrap) for task in _tasks(answers)},
    }


def _tasks(answers: Answers) -> list[str]:
    return list(dict.fromkeys(task for table in answers.values() for task in table["task"]))


def _whole(answers: Answers) -> Answers:
    """What is said from all modalities."""
    return {name: table.loc[table["subset"] == ALL] for name, table in answers.items()}


def _answered(table: pd.DataFrame, task: str) -> bool:
    """Whether a method answers a task from all modalities, for studies of both classes."""
    return table.loc[(table["task"] == task) & (table["subset"] == ALL), "y"].nunique() == 2


def _best(val: Answers, task: str) -> str:
    found = {name: _validated(table, task, ALL) for name, table in val.items()}
    return max(found, key=lambda name: found[name] or 0.0)


def _validated(table: pd.DataFrame, task: str, subset: str) -> float | None:
    """AUROC on validation studies, the mean over seeds."""
    part = table.loc[(table["task"] == task) & (table["subset"] == subset)]
    if part["y"].nunique() < 2:
        return None
    return float(
        np.mean([point(auroc, p["y"].to_numpy(), p["probability"].to_numpy()) for _, p in part.groupby("seed")])
    )


def _of_task(val: Answers, test: Answers, task: str, order: Sequence[str], bootstrap: int) -> dict[str, Any]:
    """{method: {subset: {"auroc", "positives", "seeds", "validation", "gain"}}} on test studies."""
    out: dict[str, Any] = {}
    for name in order:
        part = test[name].loc[test[name]["task"] == task]
        found = compare({name: [part]}, n=bootstrap)[name]
        gained = gains({"random": part.assign(probability=part["random"]), name: part}, "random", n=bootstrap)[name]
        out[name] = {
            subset: entry | {"validation": _validated(val[name], task, subset), "gain": gained.get(subset)}
            for subset, entry in found.items()
        }
    return out


def protocol_of(design: Design, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the numbers are: printed beside them."""
    import medssml

    seeds = len({cell["seed"] for cell in cells})
    labelled = sorted({cell["method"] for cell in cells if cell.get("labels_seen")})
    return {
        "medssml": medssml.__version__,
        "cohort": _cohort(design),
        "pretraining": f"{design.steps} steps on the training studies without labels, at the settings of each config; float32"
        + (f"; {', '.join(labelled)} learns from labels, too, and is no match for the others" if labelled else ""),
        "probe": "logistic regression on the frozen embedding (one modality: its encoder's own; all: the fused one of what a "
        "study has), fitted on the same labelled training studies for all, its penalty chosen on validation studies",
        "random encoder": "the same model with its first weights, from the same seed, the statistics of its features, and "
        "what it measures by hand",
        "order": "mean rank over tasks from all modalities on validation studies; all figures are of test studies",
        "interval": f"95 %, {design.bootstrap} resamples of subjects, and of the seeds where there are several; ranks: of "
        "subjects. Nothing is corrected for the number of comparisons: of 40 gains of nothing, one lies above 0",
        "seeds": "1: another seed may order the methods otherwise" if seeds == 1 else seeds,
        "encoders": f"those of {design.base} and its transforms, but for methods that bring their own",
        "search": "none: each method has one setting, that of its config",
    }


def _cohort(design: Design) -> str:
    """The studies in words."""
    if design.manifest is not None:
        return f"the studies of {design.manifest.name} (sha256 {design.settings()['manifest'][:16]}), their splits"
    simulated = f"{design.studies} simulated studies of the small preset, the same for all methods and seeds; "
    return simulated + f"{design.missing:.0%} of the modalities absent at random"
