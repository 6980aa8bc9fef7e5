"""Labels of a training: which tasks and studies, how many of each class and split, and what can be learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medssml.manifest.refusal import ManifestError
from medssml.manifest.splits import SPLITS
from medssml.randomness import hash64
from medssml.runs import console
from medssml.schema import nearest

if TYPE_CHECKING:
    from medssml.manifest.manifest import Manifest
    from medssml.model import Task

Account = dict[str, dict[str, Any]]

#: A spread of training targets below this share of their size is rounding.
LEAST_SPREAD = 1e-12


def label_account(table: Manifest, tasks: Sequence[str]) -> Account:
    """Task -> kind, classes, unit, and per split: labels, subjects, and labels per class, or mean and sd of numbers."""
    account: Account = {}
    for task in tasks:
        label, values = table.tasks[task], table.targets[task]
        splits = {}
        for split in SPLITS:
            known = np.isfinite(values) & (table.splits == split)
            splits[split] = {
                "labels": int(known.sum()),
                "subjects": len(set(table.subject_ids[known])),
                **_content(label.classes, values[known]),
            }
        account[task] = {"kind": label.kind, "classes": list(label.classes), "unit": label.unit, "splits": splits}
    return account


def _content(classes: Sequence[str], values: np.ndarray) -> dict[str, Any]:
    if classes:
        return {"per_class": {name: int((values == index).sum()) for index, name in enumerate(classes)}}
    if len(values) == 0:
        return {"mean": None, "sd": None}
    return {"mean": float(values.mean()), "sd": float((values - values.mean()).std())}


def say_account(account: Account) -> None:
    """The account as a table, with a warning for each class that some split has and training lacks."""
    rows = []
    for task, entry in account.items():
        for split, found in entry["splits"].items():
            rows.append((task, entry["kind"], split, found["labels"], found["subjects"], _brief(found, entry["unit"])))
    console.table(rows, ("task", "kind", "split", "labels", "subjects", "of them"))
    for task, entry in account.items():
        if len(entry["classes"]) == 2:
            console.say(f"{task}: the positive class is {entry['classes'][1]}")


def warn_of_untrained(account: Account) -> None:
    """Says which classes no training study has."""
    for task, entry in account.items():
        trained = entry["splits"]["train"].get("per_class", {})
        lacking = [name for name, count in trained.items() if count == 0]
        if lacking:
            console.warn(f"{task}: no training study is of class {', '.join(lacking)}; it is never predicted")


def _brief(found: Mapping[str, Any], unit: str) -> str:
    if "per_class" in found:
        return ", ".join(f"{name}: {count}" for name, count in found["per_class"].items())
    if found["mean"] is None:
        return ""
    return f"mean {found['mean']:.6g}, sd {found['sd']:.6g}{unit and f' {unit}'}"


def facts(account: Account) -> dict[str, str]:
    """The account as parameters of a tracker."""
    return {
        f"labels.{task}.{split}": f"{found['labels']} of {found['subjects']} subjects; {_brief(found, entry['unit'])}"
        for task, entry in account.items()
        for split, found in entry["splits"].items()
    }


def why_not_learnable(entry: Mapping[str, Any]) -> str | None:
    """Why no head can learn a task from the training studies of its account, or None."""
    train = entry["splits"]["train"]
    if train["labels"] == 0:
        return "no training study has a label of it"
    held = [name for name, count in train.get("per_class", {}).items() if count]
    return f"all {train['labels']} training labels are of class {held[0]}" if len(held) == 1 else None


def learnable(account: Account, *, every: bool) -> list[str]:
    """The tasks of an account that training studies can teach.

    Args:
        every: all tasks of the table were asked for: one that cannot be learned is left out with a warning.

    Raises:
        ValueError: a task that was asked for by name cannot be learned, or none can.
    """
    reasons = {task: reason for task, entry in account.items() if (reason := why_not_learnable(entry))}
    left = [task for task in account if task not in reasons]
    if reasons and (not every or not left):
        said = "; ".join(f"task {task!r}: {reason}" for task, reason in reasons.items())
        raise ValueError(f"{said}; fix: label training studies of two classes or more, or leave the task out of --task")
    for task, reason in reasons.items():
        console.warn(f"task {task!r} is left out: {reason}")
    return left


def task_records(table: Manifest, tasks: Sequence[str], *, evidence: bool = False) -> dict[str, Task]:
    """Task -> what its head is to be, with the scale and the counts of the studies of `table`."""
    from medssml.model import Task

    records = {}
    for task, entry in label_account(table, tasks).items():
        label, train = table.tasks[task], entry["splits"]["train"]
        mean, sd = (train["mean"] or 0.0, train["sd"] or 0.0) if label.kind == "regression" else (0.0, 1.0)
        counts = {
            split: found.get("per_class", {"labelled": found["labels"]}) for split, found in entry["splits"].items()
        }
        records[task] = Task(
            label.kind, label.n_classes, label.classes, label.unit, evidence, mean, _scale(mean, sd), counts
        )
    return records


def _scale(mean: float, sd: float) -> float:
    """What errors are measured in; 1 where all targets are one."""
    return sd if sd > LEAST_SPREAD * abs(mean) else 1.0


def chosen_tasks(table: Manifest, task: Sequence[str]) -> list[str]:
    """The tasks that were asked for, or all.

    Raises:
        KeyError: the manifest has no such label column.
    """
    asked = [task] if isinstance(task, str) else list(task)
    if asked == ["all"]:
        asked = list(table.tasks)
    for name in asked:
        if name not in table.tasks:
            raise KeyError(f"the manifest has no column label_{name}{nearest(name, table.tasks)}")
    if not asked:
        raise KeyError("no task; fix: --task NAME, the name of a label column without `label_`")
    return asked


def tasks_of_classes(table: Manifest, task: Sequence[str]) -> list[str]:
    """The tasks that were asked for, all of the table's that are of classes where none was named, or `all`.

    Raises:
        KeyError: no such task. ValueError: one that was named is a number, or all are.
    """
    every = list([task] if isinstance(task, str) else task) in ([], ["all"])
    asked = chosen_tasks(table, "all" if every else task)
    numbers = [name for name in asked if table.tasks[name].kind == "regression"]
    if numbers and (not every or len(numbers) == len(asked)):
        raise ValueError(f"task {numbers[0]!r} is a number; fix: a task of classes")
    return [name for name in asked if name not in numbers]


def untaught_tasks(table: Manifest, task: Sequence[str], trained: Sequence[str]) -> list[str]:
    """`tasks_of_classes`, for a model that is to say something of their labels by what it learned without them.

    Raises:
        as `tasks_of_classes`. ValueError: one of `trained`, the tasks that the model was trained on.
    """
    chosen = tasks_of_classes(table, task)
    known = [name for name in chosen if name in trained]
    if known:
        raise ValueError(
            f"the model was trained on the labels of {', '.join(known)}, and would repeat them; fix: --checkpoint with the "
            f"pretraining that it began from"
        )
    return chosen


def labelled_studies(table: Manifest, tasks: Sequence[str], share: float, *, seed: int) -> Manifest:
    """The studies with a label of one of `tasks`; of the training subjects only a share.

    Subjects are taken in an order that is a function of their id, the seed and their labels: a smaller share is a part
    of a larger one, and each holds the combinations of labels in about the proportions of the whole.

    Raises:
        ValueError: `share` is not above 0 and at most 1, or no training study is labelled.
    """
    if not 0 < share <= 1:
        raise ValueError(f"labels is {share}; fix: a share above 0 and at most 1, such as 0.1")
    table = table.labelled(*tasks)
    train = table.splits == "train"
    if not train.any():
        raise ValueError(f"no training study has a label of {', '.join(tasks)}; fix: the split column, or another task")
    if share == 1:
        return table
    order = _subject_order(table.filter(train), tasks, seed)
    kept = set(order[: max(1, round(share * len(order)))])
    return table.filter(~train | np.array([subject in kept for subject in table.subject_ids]))


def _subject_order(train: Manifest, tasks: Sequence[str], seed: int) -> list[str]:
    labels: dict[str, str] = {}
    for position, subject in enumerate(train.subject_ids):
        values = ",".join(str(float(train.targets[task][position])) for task in tasks)
        labels[subject] = max(labels.get(subject, ""), values)
    groups: dict[str, list[str]] = {}
    for subject in sorted(labels, key=lambda name: hash64(name, seed)):
        groups.setdefault(labels[subject], []).append(subject)
    # The middle of each one's place in its group, as a share of the group: groups interleave in proportion.
    place = {s: ((i + 0.5) / len(group), hash64(s, seed)) for group in groups.values() for i, s in enumerate(group)}
    return sorted(place, key=lambda subject: place[subject])


def balanced_weights(table: Manifest, tasks: Sequence[str]) -> dict[str, list[float]]:
    """Task -> weight of each class, n / (K n_k), from the training studies; a regression has none."""
    train = table.split("train")
    weights = {}
    for task in tasks:
        label = train.tasks[task]
        if label.kind == "regression":
            continue
        known = train.targets[task][np.isfinite(train.targets[task])].astype(int)
        counts = np.bincount(known, minlength=label.n_classes).clip(min=1)
        weights[task] = [float(len(known) / (len(counts) * count)) for count in counts]
    return weights


def label_weights(table: Manifest, tasks: Sequence[str]) -> dict[str, list[float]]:
    """Task -> weight of the label of each training study, in their order, from the column weight_TASK; an empty cell is 1.

    A task without the column, or whose weights are all 1, has none.

    Raises:
        medssml.manifest.refusal.ManifestError: a cell that is no number from 0 on, with its row and column.
    """
    train = table.split("train")
    found = {task: _weights(train, task) for task in tasks if f"weight_{task}" in train.table}
    return {task: values.tolist() for task, values in found.items() if (values != 1).any()}


def without_discarded(table: Manifest, tasks: Sequence[str]) -> Manifest:
    """The table with the labels of training and validation studies unknown whose weight is 0; what is left is said.

    Raises:
        medssml.manifest.refusal.ManifestError: as `label_weights`.
    """
    cells = table.table
    for task in tasks:
        if f"weight_{task}" not in cells:
            continue
        weights = _weights(table, task)
        known = np.isfinite(table.targets[task]) & (table.splits != "test")
        gone = known & (weights == 0)
        less = known & (weights > 0) & (weights < 1) & (table.splits == "train")
        console.say(
            f"{task}: weight_{task} leaves out {int(gone.sum())} of {int(known.sum())} labels of training and validation, and "
            f"{int(less.sum())} more weigh less than 1 in training"
        )
        cells = cells.assign(**{f"label_{task}": cells[f"label_{task}"].mask(gone, "")})
    return table if cells is table.table else replace(table, table=cells)


def _weights(table: Manifest, task: str) -> np.ndarray:
    """(n,) of all studies."""
    column = f"weight_{task}"
    cells = table.table[column]
    values = pd.to_numeric(cells.replace("", "1"), errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~np.isfinite(values) | (values < 0)
    if wrong.any():
        reason = "a weight is a number from 0 on, or empty for 1; fix: write one"
        raise ManifestError(
            "the table", [(int(str(row)), column, f"{cell!r}: {reason}") for row, cell in cells[wrong].items()]
        )
    return values
