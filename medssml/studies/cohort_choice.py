"""Whether `medssml study cohort` uses the probe or the fine-tuned model, per task, without a look at a test study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from medssml.studies.cohort_fits import WHOLE, Plan, Study, with_validation, written

#: (task, method) -> what it says, one table per fold and seed.
Answers = Mapping[tuple[str, str], list[pd.DataFrame]]

#: The better of the two ways to use the pretrained model, and how it is chosen.
CHOSEN = "chosen on validation"
CHOICE = (
    "per task, probe or fine-tuned model, by the mean AUROC over subsets, folds and seeds, of studies and subsets that both "
    "answer for; no test study is looked at. By folds: subjects who are not test, in turn left out of fine-tuning and probe; the "
    "pretrained model has seen the training studies among theirs without labels. By validation: the validation studies, from "
    "which the probe's penalty may come, too"
)
#: Validation studies of each class from which they choose alone; with fewer the training subjects do, by folds.
ENOUGH = 50
#: Subjects of each class without whom neither folds nor validation choose.
LEAST = 5
WAYS = ("probe", "finetune")


def chosen_by(table: pd.DataFrame, task: str, folds: int) -> str:
    """What the choice for a task stands on: "validation", "folds", or "" where there are too few labels for either.

    Args:
        table: all studies, with `split`, `subject_id` and `label_TASK`.
        task: binary.
        folds: of the training subjects; 0 = validation alone.
    """
    labelled = table.loc[table[f"label_{task}"] != ""]

    def rarer(split: str, column: str) -> int:
        """Studies or subjects of the rarer class."""
        part = labelled.loc[labelled["split"] == split]
        counts = part.groupby(part[f"label_{task}"].astype(float))[column].nunique()
        return int(counts.min()) if len(counts) == 2 else 0

    if rarer("val", "study_id") >= ENOUGH:
        return "validation"
    if folds and rarer("train", "subject_id") >= max(LEAST, folds):
        return "folds"
    return "validation" if rarer("val", "study_id") >= LEAST else ""


def learned_whole(study: Study, by: Mapping[str, str]) -> set[str]:
    """The tasks that are learned from validation studies as well: these choose neither a way of use there nor an epoch."""
    return {task for task, name in by.items() if name == "folds" and study.fixed_length}


def choice_plans(study: Study, table: pd.DataFrame, task: str, folds: int, whole: bool = False) -> Iterator[Plan]:
    """Folds by subject of the labelled training studies; each is asked in the place of the test studies.

    Args:
        whole: validation studies are learned from and asked as well; else they stay what they are, so that a fit does with
            them what it does for the test studies.
    """
    from medssml.statistics.comparison import subject_folds

    labelled = table.loc[(table[f"label_{task}"] != "") & (table["split"] != "test")]
    labelled = with_validation(labelled) if whole else labelled
    train = (labelled["split"] == "train").to_numpy()
    mine = labelled.loc[train]
    fold_of = np.full(len(labelled), -1)
    fold_of[train] = subject_folds(list(mine["subject_id"]), list(mine[f"label_{task}"].astype(float)), folds)
    for fold in range(folds):
        name = f"{task}{WHOLE if whole else ''}_choice{fold}of{folds}"
        split = np.where(fold_of == fold, "test", labelled["split"])
        yield Plan(task, name, written(study, name, labelled.assign(split=split)), "choice", fold)


def judged(answers: Answers, bootstrap: int) -> dict[str, dict[str, dict[str, Any]]]:
    """{task: {method: {subset: {"auroc": .., "seeds": ..}}}}: AUROC within each fold, the mean over folds and seeds.

    All methods are asked about the studies, as seen in a subset, that both ways of use answer for: a probe of few studies
    of a subset is not fitted.
    """
    from medssml.statistics.comparison import compare

    out: dict[str, dict[str, dict[str, Any]]] = {}
    for task in dict.fromkeys(task for task, _ in answers):
        tables = {name: pd.concat(parts, ignore_index=True) for (of, name), parts in answers.items() if of == task}
        shared = _shared([tables[name] for name in WAYS if name in tables])
        kept = {name: table.merge(shared, on=list(shared.columns)) for name, table in tables.items()}
        out[task] = compare({name: [table] for name, table in kept.items()}, n=bootstrap)
    return out


def _shared(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """(study_id, subset) that every table has for each of its seeds."""
    keys = ["study_id", "subset"]
    shared = []
    for table in tables:
        seeds = table.groupby(keys)["seed"].nunique()
        shared.append(seeds.loc[seeds == table["seed"].nunique()].reset_index()[keys])
    return reduce(lambda one, other: one.merge(other, on=keys), shared)


def best(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Task -> the way of use with the highest mean AUROC over subsets; the first of `WAYS` where both are equal.

    A task for whose studies no subset has answers of both classes has none.
    """
    out = {}
    for task, methods in found.items():
        means = {name: mean_auroc(methods[name]) for name in WAYS if methods.get(name)}
        if means:
            out[task] = max(means, key=lambda name: means[name])
    return out


def mean_auroc(subsets: Mapping[str, Mapping[str, Any]]) -> float:
    """Over subsets of modalities."""
    return float(np.mean([entry["auroc"]["estimate"] for entry in subsets.values()]))
